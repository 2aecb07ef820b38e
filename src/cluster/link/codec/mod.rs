//! The bytes of requests and responses: our own compact form, big-endian, every length checked against what is left.
//!
//! | piece | bytes |
//! | --- | --- |
//! | number | its own width |
//! | text | `u32` length, UTF-8 |
//! | name of an API or a stage | `u8` length, ASCII |
//! | optional piece | `u8`, 0 or 1, then the piece |
//! | connection id | 11, as in its text form |
//! | message | `u8` kind, `u32` length, payload |
//! | list | `u32` count, items |
//!
//! Names pass the same checks as anywhere else ([`ApiId::parse`] and its like). Nothing is reserved by what a length
//! claims: a list's room is bounded by the bytes that are there.

mod request;
mod response;

use std::net::IpAddr;

use bytes::Bytes;

pub(super) use request::{decode_request, encode_request, request_bound};
pub(super) use response::{decode_response, encode_response};

use crate::cluster::GroupName;
use crate::ids::{ApiId, ConnectionId, ID_BYTES, Incarnation, StageName};
use crate::message::Kind;

/// What is wrong with bytes that are no message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

const CUT: Malformed = Malformed("a frame that ends too early");

/// Reads pieces from the front of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing may be left.
    pub(super) const fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("a frame with bytes behind its end")) }
    }

    const fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn incarnation(&mut self) -> Result<Incarnation, Malformed> {
        let number = self.u32()?;
        let incarnation = Incarnation::new(number);
        if incarnation.get() == number {
            Ok(incarnation)
        } else {
            Err(Malformed("an incarnation of more than 24 bits"))
        }
    }

    fn usize(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u64()?).map_err(|_| Malformed("a count that is too large"))
    }

    /// A text of at most `max` bytes.
    pub(super) fn text(&mut self, max: usize) -> Result<&'a str, Malformed> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(Malformed("a text that is too long"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    fn name(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.u8()?);
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a name that is not UTF-8"))
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed("neither there nor absent")),
        }
    }

    fn id(&mut self) -> Result<ConnectionId, Malformed> {
        let [i0, i1, i2, s0, s1, s2, secret @ ..]: [u8; ID_BYTES] = self.array()?;
        let incarnation = Incarnation::new(u32::from_be_bytes([0, i0, i1, i2]));
        Ok(ConnectionId::from_parts(incarnation, u32::from_be_bytes([0, s0, s1, s2]), secret))
    }

    fn api(&mut self) -> Result<ApiId, Malformed> {
        ApiId::parse(self.name()?).map_err(|_| Malformed("not the name of an API"))
    }

    fn stage(&mut self) -> Result<StageName, Malformed> {
        StageName::parse(self.name()?).map_err(|_| Malformed("not the name of a stage"))
    }

    fn group(&mut self) -> Result<GroupName, Malformed> {
        let api = self.api()?;
        let name = self.text(MAX_GROUP_BYTES)?;
        GroupName::new(&api, name).ok_or(Malformed("not the name of a group"))
    }

    /// The payload is copied: a message that waits in an outbox must not keep the link's whole buffer.
    fn message(&mut self) -> Result<(Kind, Bytes), Malformed> {
        let kind = match self.u8()? {
            0 => Kind::Text,
            1 => Kind::Binary,
            _ => return Err(Malformed("a message that is neither text nor binary")),
        };
        let length = self.u32()? as usize;
        let payload = self.take(length)?;
        if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
            return Err(Malformed("a text message that is not UTF-8"));
        }
        Ok((kind, Bytes::copy_from_slice(payload)))
    }

    fn ip(&mut self) -> Result<IpAddr, Malformed> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            6 => self.array::<16>().map(IpAddr::from),
            _ => Err(Malformed("an address of no known family")),
        }
    }

    /// A list whose items take at least `least` bytes each.
    fn list<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()? as usize;
        if count > self.left() / least {
            return Err(CUT);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

/// Longest name of a group, as `GroupName::new` has it; a longer text is not even looked at.
const MAX_GROUP_BYTES: usize = 256;

/// Appends a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a name of at most 255 bytes, which the types of names see to.
fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_id(out: &mut Vec<u8>, id: &ConnectionId) {
    out.extend_from_slice(id.as_bytes());
}

fn put_api(out: &mut Vec<u8>, api: &ApiId) {
    put_name(out, api.as_str());
}

fn put_stage(out: &mut Vec<u8>, stage: &StageName) {
    put_name(out, stage.as_str());
}

fn put_group(out: &mut Vec<u8>, group: &GroupName) {
    put_api(out, &group.api);
    put_text(out, &group.name);
}

fn put_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.push(match kind {
        Kind::Text => 0,
        Kind::Binary => 1,
    });
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

#[cfg(test)]
mod tests;

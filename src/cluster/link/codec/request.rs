//! Requests as bytes. Each begins with the milliseconds its sender waits for the answer.

use super::{Malformed, Reader, put_api, put_group, put_id, put_message, put_optional, put_stage};
use crate::cluster::link::frame::kinds;
use crate::cluster::transport::Request;

/// Bytes of a request besides its message, generously: two names, a group, two ids, numbers.
const REST_BOUND: usize = 1_024;

/// At most so many bytes does a request become.
pub(in crate::cluster::link) fn request_bound(request: &Request) -> usize {
    REST_BOUND
        + match request {
            Request::Push { payload, .. }
            | Request::SendToGroup { payload, .. }
            | Request::SendToAll { payload, .. } => payload.len(),
            Request::Describe { .. }
            | Request::Close { .. }
            | Request::Join { .. }
            | Request::Leave { .. }
            | Request::Members { .. }
            | Request::List { .. } => 0,
        }
}

/// Appends a request and returns its frame's kind.
pub(in crate::cluster::link) fn encode_request(out: &mut Vec<u8>, deadline_ms: u32, request: &Request) -> u8 {
    out.extend_from_slice(&deadline_ms.to_be_bytes());
    match request {
        Request::Push { id, api, kind, payload, invocation } => {
            put_id(out, id);
            put_optional(out, api.as_ref(), put_api);
            put_optional(out, *invocation, |out, number| out.extend_from_slice(&number.to_be_bytes()));
            put_message(out, *kind, payload);
            kinds::PUSH
        }
        Request::Describe { id, api } => {
            put_id(out, id);
            put_optional(out, api.as_ref(), put_api);
            kinds::DESCRIBE
        }
        Request::Close { id, api } => {
            put_id(out, id);
            put_optional(out, api.as_ref(), put_api);
            kinds::CLOSE
        }
        Request::Join { id, group } => {
            put_id(out, id);
            put_group(out, group);
            kinds::JOIN
        }
        Request::Leave { id, group } => {
            put_id(out, id);
            put_group(out, group);
            kinds::LEAVE
        }
        Request::SendToGroup { group, kind, payload, except } => {
            put_group(out, group);
            put_optional(out, except.as_ref(), put_id);
            put_message(out, *kind, payload);
            kinds::SEND_TO_GROUP
        }
        Request::SendToAll { api, kind, payload } => {
            put_api(out, api);
            put_message(out, *kind, payload);
            kinds::SEND_TO_ALL
        }
        Request::Members { group, after, limit } => {
            put_group(out, group);
            put_optional(out, after.as_ref(), put_id);
            out.extend_from_slice(&limit.to_be_bytes());
            kinds::MEMBERS
        }
        Request::List { api, stage, after, limit } => {
            put_optional(out, api.as_ref(), put_api);
            put_optional(out, stage.as_ref(), put_stage);
            put_optional(out, after.as_ref(), put_id);
            out.extend_from_slice(&limit.to_be_bytes());
            kinds::LIST
        }
    }
}

/// Reads a request and how many milliseconds its sender waits.
pub(in crate::cluster::link) fn decode_request(kind: u8, payload: &[u8]) -> Result<(u32, Request), Malformed> {
    let mut from = Reader::new(payload);
    let deadline_ms = from.u32()?;
    let request = match kind {
        kinds::PUSH => {
            let id = from.id()?;
            let api = from.optional(Reader::api)?;
            let invocation = from.optional(Reader::u64)?;
            let (kind, payload) = from.message()?;
            Request::Push { id, api, kind, payload, invocation }
        }
        kinds::DESCRIBE => Request::Describe { id: from.id()?, api: from.optional(Reader::api)? },
        kinds::CLOSE => Request::Close { id: from.id()?, api: from.optional(Reader::api)? },
        kinds::JOIN => Request::Join { id: from.id()?, group: from.group()? },
        kinds::LEAVE => Request::Leave { id: from.id()?, group: from.group()? },
        kinds::SEND_TO_GROUP => {
            let group = from.group()?;
            let except = from.optional(Reader::id)?;
            let (kind, payload) = from.message()?;
            Request::SendToGroup { group, kind, payload, except }
        }
        kinds::SEND_TO_ALL => {
            let api = from.api()?;
            let (kind, payload) = from.message()?;
            Request::SendToAll { api, kind, payload }
        }
        kinds::MEMBERS => {
            Request::Members { group: from.group()?, after: from.optional(Reader::id)?, limit: from.u32()? }
        }
        kinds::LIST => Request::List {
            api: from.optional(Reader::api)?,
            stage: from.optional(Reader::stage)?,
            after: from.optional(Reader::id)?,
            limit: from.u32()?,
        },
        _ => return Err(Malformed("a frame of no known kind")),
    };
    from.end()?;
    Ok((deadline_ms, request))
}

//! The header of the PROXY protocol, versions 1 and 2: what a balancer that does not look into the bytes says before
//! them (the protocol's own document: "The PROXY protocol", HAProxy).
//!
//! It comes before TLS and before HTTP, so not one byte behind it may be taken: it is looked at where it lies in the
//! socket, and only what belongs to it is read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest header of version 1: the protocol's own bound.
const MAX_V1: usize = 107;
/// Largest header of version 2 that is taken: what fits any path in one packet, as the protocol asks of senders.
const MAX_V2: usize = 536;
/// Bytes before the addresses of version 2: signature, version and command, family, length.
const HEAD_V2: usize = 16;
/// How a header of version 1 begins.
const START_V1: &[u8] = b"PROXY ";
/// Additional data: what the client's TLS was (`PP2_TYPE_SSL`).
const TYPE_SSL: u8 = 0x20;
/// In its first byte: the client came over TLS (`PP2_CLIENT_SSL`).
const CLIENT_SSL: u8 = 0x01;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// A connection of the proxy itself, such as a health check, or one whose client it does not know.
    Nobody,
    /// A client.
    Client {
        /// Who connected to the proxy.
        client: SocketAddr,
        /// The address of the proxy that it connected to.
        to: SocketAddr,
        /// Whether over TLS; `None` when the proxy does not say.
        is_tls: Option<bool>,
    },
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Other bytes.
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    /// Longer than any that is taken.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It begins like one and goes on otherwise.
    #[error("the PROXY header is malformed")]
    Nonsense,
}

/// Why a connection ends before its first byte.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTold {
    /// The bytes are wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They did not come.
    #[error("the PROXY header took too long")]
    Late,
    /// The connection ended first.
    #[error("the connection ended within the PROXY header")]
    Ended(#[source] io::Error),
}

/// How far the start of a connection has come.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The header is not whole. This many of the bytes belong to it in any case.
    Partial(usize),
    /// It is, with this many bytes.
    Whole(usize),
}

/// Finds the end of the header at the start of `bytes`, without reading its words.
fn progress(bytes: &[u8]) -> Result<Progress, Malformed> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(a, b)| a == b);
    if begins(START_V1) {
        let line = bytes.get(..bytes.len().min(MAX_V1)).unwrap_or_default();
        return match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok(Progress::Whole(end + 1)),
            None if bytes.len() >= MAX_V1 => Err(Malformed::TooLong),
            None => Ok(Progress::Partial(bytes.len())),
        };
    }
    if !begins(v2::PROTOCOL_PREFIX) {
        return Err(Malformed::NoHeader);
    }
    let Some(&[high, low]) = bytes.get(HEAD_V2 - 2..HEAD_V2) else { return Ok(Progress::Partial(bytes.len())) };
    let length = HEAD_V2 + usize::from(u16::from_be_bytes([high, low]));
    match length {
        _ if length > MAX_V2 => Err(Malformed::TooLong),
        _ if bytes.len() < length => Ok(Progress::Partial(bytes.len())),
        _ => Ok(Progress::Whole(length)),
    }
}

/// Reads a whole header.
fn parse(header: &[u8]) -> Result<Told, Malformed> {
    if header.starts_with(START_V1) { parse_v1(header) } else { parse_v2(header) }
}

fn parse_v1(header: &[u8]) -> Result<Told, Malformed> {
    let header = v1::Header::try_from(header).map_err(|_| Malformed::Nonsense)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => Told::Nobody,
        v1::Addresses::Tcp4(ip) => Told::Client {
            client: (ip.source_address, ip.source_port).into(),
            to: (ip.destination_address, ip.destination_port).into(),
            is_tls: None,
        },
        v1::Addresses::Tcp6(ip) => Told::Client {
            client: (ip.source_address, ip.source_port).into(),
            to: (ip.destination_address, ip.destination_port).into(),
            is_tls: None,
        },
    })
}

fn parse_v2(header: &[u8]) -> Result<Told, Malformed> {
    // LOCAL: everything behind the command is to be ignored, which the package would complain about.
    if header.get(HEAD_V2 - 4) == Some(&0x20) {
        return Ok(Told::Nobody);
    }
    let header = v2::Header::try_from(header).map_err(|_| Malformed::Nonsense)?;
    let (client, to): (SocketAddr, SocketAddr) = match header.addresses {
        v2::Addresses::IPv4(ip) => {
            ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
        }
        v2::Addresses::IPv6(ip) => {
            ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
        }
        // Somebody on the proxy's own machine.
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => return Ok(Told::Nobody),
    };
    if header.protocol != v2::Protocol::Stream {
        return Err(Malformed::Nonsense);
    }
    let mut is_tls = None;
    for item in header.tlvs() {
        let item = item.map_err(|_| Malformed::Nonsense)?;
        if item.kind == TYPE_SSL {
            let flags = item.value.first().ok_or(Malformed::Nonsense)?;
            is_tls = Some(flags & CLIENT_SSL != 0);
        }
    }
    Ok(Told::Client { client, to, is_tls })
}

/// Takes the header off the start of a connection, and nothing behind it. `limit` is the time for all of it.
///
/// # Cancel safety
/// None: what was read of the header is lost, and so is the connection.
pub(super) async fn take(stream: &mut TcpStream, limit: Duration) -> Result<Told, NoTold> {
    timeout(limit, whole(stream)).await.unwrap_or(Err(NoTold::Late))
}

async fn whole(stream: &mut TcpStream) -> Result<Told, NoTold> {
    let mut buffer = [0; MAX_V2];
    let mut held = 0;
    loop {
        let room = buffer.get_mut(held..).unwrap_or_default();
        let seen = held + stream.peek(room).await.map_err(NoTold::Ended)?;
        if seen == held {
            return Err(NoTold::Ended(io::ErrorKind::UnexpectedEof.into()));
        }
        let (upto, is_whole) = match progress(buffer.get(..seen).unwrap_or_default())? {
            Progress::Partial(upto) => (upto, false),
            Progress::Whole(upto) => (upto, true),
        };
        // All of this was seen just now: the read does not wait.
        let part = buffer.get_mut(held..upto).unwrap_or_default();
        stream.read_exact(part).await.map_err(NoTold::Ended)?;
        held = upto;
        if is_whole {
            return Ok(parse(buffer.get(..held).unwrap_or_default())?);
        }
    }
}

/// Where a header at the start of `bytes` ends, and the client it names; for `fuzzing`.
pub(super) fn look(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    match progress(bytes)? {
        Progress::Partial(_) => Ok(None),
        Progress::Whole(length) => Ok(Some(match parse(bytes.get(..length).unwrap_or_default())? {
            Told::Nobody => (length, None),
            Told::Client { client, .. } => (length, Some(client)),
        })),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n";

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 0x01, 0xbb];

    fn told(client: &str, to: &str, is_tls: Option<bool>) -> Told {
        Told::Client { client: client.parse().unwrap(), to: to.parse().unwrap(), is_tls }
    }

    fn ssl(flags: u8) -> Vec<u8> {
        [&IPV4[..], &[0x04, 0, 1, 9, TYPE_SSL, 0, 5, flags, 0, 0, 0, 0]].concat()
    }

    /// Every form a proxy sends, and what it says.
    fn forms() -> Vec<(Vec<u8>, Told)> {
        let known = told("192.0.2.1:5000", "198.51.100.2:443", None);
        let six = told("[2001:db8::1]:5000", "[2001:db8::2]:443", None);
        let ipv6: Vec<u8> = [
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &[0x13, 0x88, 0x01, 0xbb],
        ]
        .concat();
        let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:".repeat(7) + "ffff");
        assert_eq!(longest.len(), MAX_V1);
        vec![
            (V1.to_vec(), known),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), Told::Nobody),
            (longest.into_bytes(), Told::Nobody),
            (v2(1, 0x11, &IPV4), known),
            (v2(1, 0x21, &ipv6), six),
            (v2(1, 0x11, &ssl(1)), told("192.0.2.1:5000", "198.51.100.2:443", Some(true))),
            (v2(1, 0x11, &ssl(0)), told("192.0.2.1:5000", "198.51.100.2:443", Some(false))),
            (v2(1, 0x00, b""), Told::Nobody),
            (v2(1, 0x31, &[0; 216]), Told::Nobody),
            (v2(0, 0x00, b""), Told::Nobody),
            // Whatever stands behind LOCAL does not count.
            (v2(0, 0x11, b"odd"), Told::Nobody),
            (v2(0, 0xff, &[7; MAX_V2 - HEAD_V2]), Told::Nobody),
        ]
    }

    fn nonsense() -> Vec<Vec<u8>> {
        let mut version = v2(1, 0x11, &IPV4);
        version[12] = 0x31;
        vec![
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 05000 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.999 198.51.100.2 5000 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 198.51.100.2 5000 443\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 198.51.100.2 5000 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.2 5000 443\r\n".to_vec(),
            b"PROXY \xff\xfe\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            version,
            v2(2, 0x11, &IPV4),
            v2(1, 0x41, &IPV4),
            v2(1, 0x13, &IPV4),
            v2(1, 0x12, &IPV4),
            v2(1, 0x11, &IPV4[..11]),
            v2(1, 0x21, &IPV4),
            v2(1, 0x11, &[&IPV4[..], &[0x04, 0]].concat()),
            v2(1, 0x11, &[&IPV4[..], &[0x04, 0, 9, 1]].concat()),
            v2(1, 0x11, &[&IPV4[..], &[TYPE_SSL, 0, 0]].concat()),
        ]
    }

    #[test]
    fn every_form_is_read_whatever_follows_it() {
        for (header, told) in forms() {
            for behind in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"PROXY UNKNOWN\r\n", &[0xff; 700]] {
                let bytes = [&header[..], behind].concat();
                assert_eq!(progress(&bytes), Ok(Progress::Whole(header.len())), "{header:?}");
                assert_eq!(parse(&header), Ok(told), "{header:?}");
            }
        }
    }

    #[test]
    fn every_beginning_of_a_header_is_one_that_is_not_whole() {
        for (header, _) in forms() {
            for length in 0..header.len() {
                assert_eq!(progress(&header[..length]), Ok(Progress::Partial(length)), "{length} of {header:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_never_a_client() {
        for header in nonsense() {
            assert_eq!(look(&header), Err(Malformed::Nonsense), "{header:?}");
        }
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST",
            b"PRI * HTTP/2.0",
            b"\x16\x03\x01",
            b"\r\n\r\n\0\r\nQUIR",
            b"proxy TCP4",
        ] {
            assert_eq!(look(bytes), Err(Malformed::NoHeader), "{bytes:?}");
        }
    }

    #[test]
    fn a_header_without_end_is_given_up_at_its_bound() {
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(progress(&endless[..MAX_V1 - 1]), Ok(Progress::Partial(MAX_V1 - 1)));
        assert_eq!(progress(&endless[..MAX_V1]), Err(Malformed::TooLong));
        let late = [&endless[..MAX_V1], b"\r\n"].concat();
        assert_eq!(progress(&late), Err(Malformed::TooLong));
        // Said before a byte of it is there.
        let length = u16::try_from(MAX_V2 - HEAD_V2 + 1).unwrap().to_be_bytes();
        let long = [v2::PROTOCOL_PREFIX, &[0x21, 0x11], &length].concat();
        assert_eq!(progress(&long), Err(Malformed::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(start in 0_usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let start = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][start];
            let bytes = [start, &bytes].concat();
            if let Ok(Some((length, _))) = look(&bytes) {
                prop_assert!(length <= bytes.len() && length <= MAX_V2);
                prop_assert_eq!(look(&bytes[..length]), look(&bytes));
            }
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        near.set_nodelay(true).unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// What [`take`] gives for bytes that come in pieces, and what is left behind in the socket.
    async fn taken(pieces: &[&[u8]]) -> (Result<Told, NoTold>, Vec<u8>) {
        let (mut near, mut far) = pair().await;
        let send = async {
            for piece in pieces {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.shutdown().await.unwrap();
        };
        let take = async {
            let told = take(&mut far, PATIENCE).await;
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            (told, rest)
        };
        tokio::join!(send, take).1
    }

    #[tokio::test]
    async fn a_header_may_come_byte_by_byte_and_takes_nothing_behind_it() {
        for (header, expected) in forms() {
            let bytes = [&header[..], b"GET /"].concat();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            for pieces in [&single[..], &[&bytes[..]], &[&bytes[..7], &bytes[7..]]] {
                let (told, rest) = taken(pieces).await;
                assert_eq!(told.unwrap(), expected);
                assert_eq!(rest, b"GET /");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told_apart() {
        assert!(matches!(taken(&[b"GET / HTTP/1.1\r\n"]).await.0, Err(NoTold::Malformed(Malformed::NoHeader))));
        assert!(matches!(taken(&[b"PROXY ", &[b'x'; 600]]).await.0, Err(NoTold::Malformed(Malformed::TooLong))));
        assert!(matches!(taken(&[b"PROXY TCP4"]).await.0, Err(NoTold::Ended(_))));
        assert!(matches!(taken(&[]).await.0, Err(NoTold::Ended(_))));
        let (mut near, mut far) = pair().await;
        near.write_all(&V1[..20]).await.unwrap();
        assert!(matches!(take(&mut far, Duration::from_millis(50)).await, Err(NoTold::Late)));
    }
}

//! Responses as bytes.

use super::{Malformed, Reader, put_api, put_id, put_ip, put_optional, put_stage, put_text};
use crate::clock::EpochMillis;
use crate::cluster::Delivered;
use crate::cluster::link::frame::kinds;
use crate::cluster::transport::{Described, Response, Row};
use crate::ids::ID_BYTES;

/// Bytes of the shortest row: id, two names of one byte, two stamps, an IPv4 address, no agent, a count.
const LEAST_ROW: usize = ID_BYTES + 2 + 2 + 8 + 8 + 5 + 1 + 8;
/// No header of a client is longer, and no answer has a longer text.
const MAX_AGENT_BYTES: usize = 1 << 20;

/// Appends a response and returns its frame's kind.
pub(in crate::cluster::link) fn encode_response(out: &mut Vec<u8>, response: &Response) -> u8 {
    match response {
        Response::Done => kinds::DONE,
        Response::Gone => kinds::GONE,
        Response::Full => kinds::FULL,
        Response::TooManyGroups => kinds::TOO_MANY_GROUPS,
        Response::TooLarge => kinds::TOO_LARGE,
        Response::Busy => kinds::BUSY,
        Response::Described(described) => {
            put_described(out, described);
            kinds::DESCRIBED
        }
        Response::Delivered(Delivered { delivered, dropped, gone, unreachable: _ }) => {
            for count in [delivered, dropped, gone] {
                out.extend_from_slice(&(*count as u64).to_be_bytes());
            }
            kinds::DELIVERED
        }
        Response::Ids(ids) => {
            out.extend_from_slice(&(ids.len() as u32).to_be_bytes());
            for id in ids {
                put_id(out, id);
            }
            kinds::IDS
        }
        Response::Rows { rows, open } => {
            out.extend_from_slice(&open.to_be_bytes());
            out.extend_from_slice(&(rows.len() as u32).to_be_bytes());
            for Row { id, api, stage, described, outbox_bytes } in rows {
                put_id(out, id);
                put_api(out, api);
                put_stage(out, stage);
                put_described(out, described);
                out.extend_from_slice(&outbox_bytes.to_be_bytes());
            }
            kinds::ROWS
        }
    }
}

/// Reads a response.
pub(in crate::cluster::link) fn decode_response(kind: u8, payload: &[u8]) -> Result<Response, Malformed> {
    let mut from = Reader::new(payload);
    let response = match kind {
        kinds::DONE => Response::Done,
        kinds::GONE => Response::Gone,
        kinds::FULL => Response::Full,
        kinds::TOO_MANY_GROUPS => Response::TooManyGroups,
        kinds::TOO_LARGE => Response::TooLarge,
        kinds::BUSY => Response::Busy,
        kinds::DESCRIBED => Response::Described(described(&mut from)?),
        kinds::DELIVERED => Response::Delivered(Delivered {
            delivered: from.usize()?,
            dropped: from.usize()?,
            gone: from.usize()?,
            unreachable: 0,
        }),
        kinds::IDS => Response::Ids(from.list(ID_BYTES, Reader::id)?),
        kinds::ROWS => {
            let open = from.u64()?;
            Response::Rows { rows: from.list(LEAST_ROW, row)?, open }
        }
        _ => return Err(Malformed("a frame of no known kind")),
    };
    from.end()?;
    Ok(response)
}

fn put_described(out: &mut Vec<u8>, described: &Described) {
    let Described { connected_at, last_active_at, source_ip, user_agent } = described;
    out.extend_from_slice(&connected_at.0.to_be_bytes());
    out.extend_from_slice(&last_active_at.0.to_be_bytes());
    put_ip(out, *source_ip);
    put_optional(out, user_agent.as_deref(), put_text);
}

fn described(from: &mut Reader<'_>) -> Result<Described, Malformed> {
    Ok(Described {
        connected_at: EpochMillis(from.u64()?),
        last_active_at: EpochMillis(from.u64()?),
        source_ip: from.ip()?,
        user_agent: from.optional(|from| from.text(MAX_AGENT_BYTES))?.map(Box::from),
    })
}

fn row(from: &mut Reader<'_>) -> Result<Row, Malformed> {
    Ok(Row {
        id: from.id()?,
        api: from.api()?,
        stage: from.stage()?,
        described: described(from)?,
        outbox_bytes: from.u64()?,
    })
}

//! What is encoded comes back; what is cut or random is refused.

use proptest::prelude::*;

use super::*;
use crate::clock::EpochMillis;
use crate::cluster::Delivered;
use crate::cluster::link::frame::{Frame, Input, MAX_PAYLOAD_BYTES, put_frame};
use crate::cluster::transport::{Described, Request, Response, Row};

fn id() -> impl Strategy<Value = ConnectionId> {
    any::<(u32, u32, [u8; 5])>()
        .prop_map(|(incarnation, slot, secret)| ConnectionId::from_parts(Incarnation::new(incarnation), slot, secret))
}

fn api() -> impl Strategy<Value = ApiId> {
    "[a-z0-9-]{1,63}".prop_map(|name| ApiId::parse(&name).unwrap())
}

fn api_name() -> impl Strategy<Value = ApiId> {
    api()
}

fn stage() -> impl Strategy<Value = StageName> {
    "[A-Za-z0-9_-]{1,128}".prop_map(|name| StageName::parse(&name).unwrap())
}

fn group() -> impl Strategy<Value = GroupName> {
    (api(), "\\PC{1,60}").prop_map(|(api, name)| GroupName::new(&api, &name).unwrap())
}

fn message() -> impl Strategy<Value = (Kind, Bytes)> {
    prop_oneof![
        "\\PC{0,300}".prop_map(|text| (Kind::Text, Bytes::from(text))),
        prop::collection::vec(any::<u8>(), 0..2_000).prop_map(|bytes| (Kind::Binary, Bytes::from(bytes))),
    ]
}

pub(in crate::cluster::link) fn request() -> impl Strategy<Value = Request> {
    let api = || prop::option::of(api());
    prop_oneof![
        (id(), api(), message(), any::<Option<u64>>()).prop_map(|(id, api, (kind, payload), invocation)| {
            Request::Push { id, api, kind, payload, invocation }
        }),
        (id(), api()).prop_map(|(id, api)| Request::Describe { id, api }),
        (id(), api()).prop_map(|(id, api)| Request::Close { id, api }),
        (id(), group()).prop_map(|(id, group)| Request::Join { id, group }),
        (id(), group()).prop_map(|(id, group)| Request::Leave { id, group }),
        (group(), message(), prop::option::of(id()))
            .prop_map(|(group, (kind, payload), except)| { Request::SendToGroup { group, kind, payload, except } }),
        (api_name(), message()).prop_map(|(api, (kind, payload))| Request::SendToAll { api, kind, payload }),
        (group(), prop::option::of(id()), any::<u32>()).prop_map(|(group, after, limit)| Request::Members {
            group,
            after,
            limit
        }),
        (api(), prop::option::of(stage()), prop::option::of(id()), any::<u32>())
            .prop_map(|(api, stage, after, limit)| Request::List { api, stage, after, limit }),
    ]
}

fn described() -> impl Strategy<Value = Described> {
    (any::<u64>(), any::<u64>(), any::<IpAddr>(), prop::option::of("\\PC{0,80}")).prop_map(
        |(connected, active, source_ip, agent)| Described {
            connected_at: EpochMillis(connected),
            last_active_at: EpochMillis(active),
            source_ip,
            user_agent: agent.map(Into::into),
        },
    )
}

pub(in crate::cluster::link) fn response() -> impl Strategy<Value = Response> {
    let row = (id(), api(), stage(), described(), any::<u64>())
        .prop_map(|(id, api, stage, described, outbox_bytes)| Row { id, api, stage, described, outbox_bytes });
    prop_oneof![
        prop::sample::select(vec![
            Response::Done,
            Response::Gone,
            Response::Full,
            Response::TooManyGroups,
            Response::TooLarge,
            Response::Busy,
        ]),
        described().prop_map(Response::Described),
        any::<(usize, usize, usize)>().prop_map(|(delivered, dropped, gone)| {
            Response::Delivered(Delivered { delivered, dropped, gone, unreachable: 0 })
        }),
        prop::collection::vec(id(), 0..50).prop_map(Response::Ids),
        (prop::collection::vec(row, 0..5), any::<u64>()).prop_map(|(rows, open)| Response::Rows { rows, open }),
    ]
}

fn framed_request(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(put_frame(&mut out, 7, |out| encode_request(out, 1_500, request)));
    out
}

fn framed_response(response: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(put_frame(&mut out, 7, |out| encode_response(out, response)));
    out
}

/// Reads a stream in pieces as the network may cut it.
fn frames(stream: &[u8], pieces: &[usize]) -> Result<Vec<(u64, u8, Vec<u8>)>, Malformed> {
    let mut input = Input::new(MAX_PAYLOAD_BYTES);
    let mut found = Vec::new();
    let mut rest = stream;
    for n in pieces.iter().cycle() {
        let (piece, behind) = rest.split_at((*n).clamp(1, rest.len().max(1)).min(rest.len()));
        input.room(piece.len().max(1))[..piece.len()].copy_from_slice(piece);
        input.arrived(piece.len());
        rest = behind;
        while let Some(Frame { id, kind, payload }) = input.next()? {
            found.push((id, kind, payload.to_vec()));
        }
        if rest.is_empty() {
            return Ok(found);
        }
    }
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn every_request_comes_back(request in request(), pieces in prop::collection::vec(1usize..200, 1..5)) {
        let read = frames(&framed_request(&request), &pieces).unwrap();
        let [(7, kind, payload)] = &read[..] else { panic!("{read:?}") };
        prop_assert_eq!(decode_request(*kind, payload), Ok((1_500, request.clone())));
        prop_assert!(payload.len() <= request_bound(&request));
    }

    #[test]
    fn every_response_comes_back(response in response(), pieces in prop::collection::vec(1usize..200, 1..5)) {
        let read = frames(&framed_response(&response), &pieces).unwrap();
        let [(7, kind, payload)] = &read[..] else { panic!("{read:?}") };
        prop_assert_eq!(decode_response(*kind, payload), Ok(response));
    }

    #[test]
    fn what_is_cut_or_longer_is_refused(request in request(), response in response(), at in any::<prop::sample::Index>()) {
        let whole = framed_request(&request);
        let (kind, payload) = (whole[12], &whole[13..]);
        prop_assert!(decode_request(kind, &payload[..at.index(payload.len())]).is_err());
        prop_assert!(decode_request(kind, &[payload, &[0]].concat()).is_err());
        let whole = framed_response(&response);
        let (kind, payload) = (whole[12], &whole[13..]);
        if !payload.is_empty() {
            prop_assert!(decode_response(kind, &payload[..at.index(payload.len())]).is_err());
        }
        prop_assert!(decode_response(kind, &[payload, &[0]].concat()).is_err());
    }

    #[test]
    fn random_bytes_and_damaged_frames_never_panic(
        random in prop::collection::vec(any::<u8>(), 0..400),
        request in request(),
        response in response(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kind in any::<u8>(),
    ) {
        let _ = frames(&random, &[17]);
        let _ = (decode_request(kind, &random), decode_response(kind, &random));
        for whole in [framed_request(&request), framed_response(&response)] {
            let mut bytes = whole;
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            for (_, kind, payload) in frames(&bytes, &[64]).unwrap_or_default() {
                // What is taken in spite of the damage is a message in good form.
                if let Ok((_, request)) = decode_request(kind, &payload) {
                    let mut again = Vec::new();
                    encode_request(&mut again, u32::from_be_bytes(*payload.first_chunk().unwrap()), &request);
                    prop_assert_eq!(&again, &payload);
                }
                if let Ok(response) = decode_response(kind, &payload) {
                    let mut again = Vec::new();
                    encode_response(&mut again, &response);
                    prop_assert_eq!(&again, &payload);
                }
            }
        }
    }
}

#[test]
fn what_no_type_allows_is_refused() {
    let push = |edit: fn(&mut Vec<u8>)| {
        let request = Request::Push {
            id: ConnectionId::from_parts(Incarnation::new(1), 2, [3; 5]),
            api: Some(ApiId::parse("chat").unwrap()),
            kind: Kind::Text,
            payload: Bytes::from_static(b"hi"),
            invocation: None,
        };
        let mut payload = Vec::new();
        let kind = encode_request(&mut payload, 1, &request);
        edit(&mut payload);
        decode_request(kind, &payload).map(|_| ()).map_err(|Malformed(why)| why)
    };
    assert_eq!(push(|_| {}), Ok(()));
    assert_eq!(push(|bytes| bytes[17] = b'C'), Err("not the name of an API"));
    assert_eq!(push(|bytes| *bytes.last_mut().unwrap() = 0xff), Err("a text message that is not UTF-8"));
    assert_eq!(push(|bytes| bytes[15] = 2), Err("neither there nor absent"));
    assert_eq!(decode_request(200, &[0; 4]), Err(Malformed("a frame of no known kind")));
}

#[test]
fn a_length_claims_nothing() {
    // A list of four billion ids, and none of them there.
    let list = [0xff; 4];
    assert_eq!(decode_response(crate::cluster::link::frame::kinds::IDS, &list), Err(CUT));
    let mut input = Input::new(MAX_PAYLOAD_BYTES);
    let header = [&(MAX_PAYLOAD_BYTES as u32 + 9).to_be_bytes()[..], &[0; 8], &[32]].concat();
    input.room(100)[..13].copy_from_slice(&header);
    input.arrived(13);
    assert_eq!(input.next(), Ok(None));
    let _room = input.room(100);
    assert!(input.capacity() < 1_000, "{}", input.capacity());
    input.room(4)[..0].copy_from_slice(&[]);

    let mut larger = Input::new(1_024);
    larger.room(13)[..13].copy_from_slice(&[&1_034u32.to_be_bytes()[..], &[0; 9]].concat());
    larger.arrived(13);
    assert_eq!(larger.next(), Err(Malformed("a frame larger than may be")));
}

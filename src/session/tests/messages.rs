//! From bytes to messages and back.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::session::walker::tests::{any_cuts, cut};

/// A text message in fragments, pings between them, as a client sends it; and its text.
fn any_message() -> impl Strategy<Value = (Vec<u8>, String)> {
    let size = prop_oneof![4 => 0..200_usize, 1 => 30_000..33_000_usize];
    (prop::collection::vec(size, 1..4), any::<bool>(), any::<[u8; 4]>()).prop_map(|(parts, ping, key)| {
        let (last, mut bytes, mut text) = (parts.len() - 1, Vec::new(), String::new());
        for (n, size) in parts.into_iter().enumerate() {
            let part = "m".repeat(size.min(32_768));
            let first = u8::from(n == 0) | if n == last { 0x80 } else { 0 };
            bytes.extend(frame(first, Some(key), part.as_bytes()));
            text.push_str(&part);
            if ping && n != last {
                bytes.extend(frame(0x89, Some(key), b"p"));
            }
        }
        (bytes, text)
    })
}

/// The next message; pongs between are what was pinged.
fn whole(client: &mut Client) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let frame = client.frame().unwrap();
        if frame.first == 0x8a {
            assert_eq!(frame.payload, b"p");
            continue;
        }
        whole.extend(frame.payload);
        if frame.first & 0x80 != 0 {
            return whole;
        }
    }
}

#[test]
fn any_cut_of_a_valid_stream_gives_the_same_messages() {
    let world = World::new();
    let case = (prop::collection::vec(any_message(), 1..5), any_cuts());
    let outcome = TestRunner::new(ProptestConfig::with_cases(150)).run(&case, |(messages, cuts)| {
        let mut live = world.open(&Setup::default());
        let stream: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut reader = Client::plain(live.client.tcp.try_clone().unwrap());
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || messages.iter().all(|(_, text)| whole(&mut reader) == text.as_bytes()));
            for piece in cut(&stream, &cuts) {
                live.client.raw(&piece);
            }
            prop_assert!(matches!(reading.join(), Ok(true)));
            Ok(())
        })
    });
    outcome.unwrap();
    world.is_left_empty();
}

#[test]
fn a_message_may_arrive_byte_by_byte() {
    let world = World::new();
    let mut live = world.open(&Setup::default());
    for byte in frame(TEXT, KEY, "grüße".as_bytes()) {
        live.client.raw(&[byte]);
    }
    assert_eq!(live.client.heard(), "grüße");
}

#[test]
fn a_ping_between_fragments_is_answered_at_once() {
    let world = World::new();
    let mut live = world.open(&Setup::default());
    live.client.raw(&frame(0x01, KEY, b"a"));
    live.client.raw(&frame(0x89, KEY, b"are you there"));
    assert_eq!(live.client.frame(), Some(Frame { first: 0x8a, payload: b"are you there".to_vec() }));
    live.client.raw(&frame(0x8a, KEY, b"unasked"));
    live.client.raw(&frame(0x80, KEY, b"b"));
    assert_eq!(live.client.heard(), "ab");
}

#[test]
fn what_came_with_the_handshake_is_served_first() {
    let world = World::new();
    let early = [frame(TEXT, KEY, b"one"), frame(TEXT, KEY, b"two")].concat();
    let (whole, half) = early.split_at(early.len() - 2);
    let mut live = world.open(&Setup { early: whole.to_vec(), ..Setup::default() });
    assert_eq!(live.client.heard(), "one");
    live.client.raw(half);
    live.client.text("three");
    assert_eq!((live.client.heard(), live.client.heard()), ("two".to_owned(), "three".to_owned()));
}

#[test]
fn a_burst_of_many_turns_is_answered_in_order() {
    let world = World::new();
    let mut live = world.open(&Setup::default());
    let burst: Vec<u8> = (0..5_000).flat_map(|n: u32| frame(TEXT, KEY, n.to_string().as_bytes())).collect();
    live.client.raw(&burst);
    for n in 0..5_000 {
        assert_eq!(live.client.heard(), n.to_string());
    }
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_client_that_sends_without_end_is_owed_one_turn() {
    use crate::session::lot::Shard;
    use crate::session::mailbox::Mail;
    use crate::session::outbox::Budget;
    use crate::session::slot::Slot;

    let world = World::new();
    let context = world.runtime.enter();
    let (shard, mailbox) = Shard::new(Instant::now(), Arc::new(Budget::new(1 << 20))).unwrap();
    let mut shard = shard;
    drop(context);
    let (client, server) = loopback(false);
    server.set_nonblocking(true).unwrap();
    let socket = Socket { stream: server, tls: None, unsent: Vec::new(), early: Vec::new(), window_bits: 0 };
    let session = Session(Arc::new(Slot::new(
        world.probe(&Setup { manner: Manner::Silent, ..Setup::default() }),
        Arc::clone(&mailbox),
        socket,
    )));
    mailbox.send(Mail::Adopt(session.clone(), Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut client, burst) = (Client::plain(client), frame(TEXT, KEY, b"more").repeat(1_000));
            while client.io.write_all(&burst).is_ok() {}
        });
        world.runtime.block_on(async {
            let mut alarm = std::pin::pin!(tokio::time::sleep(PATIENCE));
            for _ in 0..500 {
                shard.round(alarm.as_mut()).await.unwrap();
                assert!(shard.owed() <= 1, "{} turns", shard.owed());
            }
        });
        drop((session, shard));
    });
}

#[test]
fn reading_pauses_at_the_exchanges_in_flight_and_goes_on() {
    let world = World::with(1, 1 << 20);
    let limits = Limits { max_messages_in_flight: 4, ..Limits::default() };
    let mut live = world.open(&Setup { manner: Manner::Keep, limits, ..Setup::default() });
    let mut other = world.open(&Setup::default());
    for n in 0..40 {
        live.client.text(&n.to_string());
    }
    for done in 4..40 {
        eventually("the next message comes", || live.log.count() >= done);
        // The same thread serves this one, so what it was going to read of the other it has read.
        other.client.text("barrier");
        other.client.heard();
        assert_eq!(live.log.count(), done);
        let exchange = live.log.exchanges.lock().remove(0);
        drop(exchange);
    }
    live.log.exchanges.lock().clear();
    eventually("all came", || live.log.count() == 40);
    assert_eq!(live.log.texts(), (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
    live.log.exchanges.lock().clear();
    drop((live, other));
    world.is_left_empty();
}

#[test]
fn a_client_that_left_while_reading_was_paused_is_noticed() {
    for by_reset in [false, true] {
        let world = World::new();
        let limits = Limits { max_messages_in_flight: 1, ..Limits::default() };
        let mut live = world.open(&Setup { manner: Manner::Keep, limits, ..Setup::default() });
        for text in ["one", "two"] {
            live.client.text(text);
        }
        eventually("one is served", || live.log.count() == 1);
        if by_reset {
            live.client.reset();
        } else {
            drop(live.client);
        }
        live.log.exchanges.lock().clear();
        // Over a reset the second may be lost with the connection.
        eventually("the end is noticed", || {
            live.log.exchanges.lock().clear();
            live.log.end().is_some()
        });
        assert_eq!(live.log.ended(), CloseReason::ClientVanished);
        world.is_left_empty();
    }
}

#[test]
fn a_held_session_hands_nothing_over_until_it_is_released() {
    let world = World::with(1, 1 << 20);
    let mut live = world.open(&Setup::default());
    let mut other = world.open(&Setup::default());
    for round in 0..50 {
        live.session.hold();
        live.client.text("kept back");
        other.client.text("barrier");
        other.client.heard();
        assert_eq!(live.log.count(), round);
        live.session.release();
        assert_eq!(live.client.heard(), "kept back");
    }
}

#[test]
fn answers_larger_than_the_outbox_wait_for_the_client_to_read() {
    let world = World::new();
    let limits = Limits { max_outbox_bytes: 400_000, ..Limits::default() };
    let setup = Setup { manner: Manner::Answer(20_000), limits, narrow: true, ..Setup::default() };
    let mut live = world.open(&setup);
    let burst = frame(TEXT, KEY, b"?").repeat(200);
    live.client.raw(&burst);
    for n in 0..200 {
        assert_eq!(live.client.message().len(), 20_000, "{n}");
    }
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_push_to_the_session_of_the_turn_keeps_its_place() {
    let world = World::new();
    for window_bits in [0, 15] {
        let mut live = world.open(&Setup { manner: Manner::PushToSelf, window_bits, ..Setup::default() });
        live.client.text("?");
        let heard = [live.client.heard(), live.client.heard(), live.client.heard()];
        assert_eq!(heard, ["before", "push", "after"]);
    }
}

#[test]
fn a_panic_ends_its_session_and_no_other() {
    let world = World::with(1, 1 << 20);
    let mut bad = world.open(&Setup { manner: Manner::Panic, ..Setup::default() });
    let mut good = world.open(&Setup::default());
    bad.client.text("boom");
    assert_eq!(bad.client.closed(), (1011, "Internal server error".to_owned()));
    assert_eq!(bad.log.ended(), CloseReason::Internal);
    good.client.text("still here");
    assert_eq!(good.client.heard(), "still here");
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1_024);
    Compress::new(Compression::new(9), false).compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    frame(0xc1, KEY, &out)
}

#[test]
fn compressed_messages_that_inflate_to_more_than_a_turn_are_all_served() {
    let world = World::new();
    let mut live = world.open(&Setup { manner: Manner::Silent, window_bits: 15, ..Setup::default() });
    let bomb = deflated(&vec![b'x'; 131_072]);
    live.client.raw(&bomb.repeat(300));
    live.client.raw(&frame(TEXT, KEY, b"last"));
    eventually("all were served", || live.log.count() == 301);
    assert!(live.log.messages.lock()[..300].iter().all(|(_, length, _)| *length == 131_072));
    drop(live);
    world.is_left_empty();
}

#[test]
fn what_is_wrong_behind_a_pause_is_found_after_it() {
    let world = World::new();
    let limits = Limits { max_messages_in_flight: 1, ..Limits::default() };
    let setup = Setup { manner: Manner::Keep, window_bits: 15, limits, ..Setup::default() };
    let mut live = world.open(&setup);
    let good = deflated(b"hello hello hello");
    let bad = frame(0xc1, KEY, b"\xff\xff\xff\xff this is not deflate");
    live.client.raw(&[good.clone(), good, bad].concat());
    for served in 1..=2 {
        eventually("a message is served", || live.log.count() == served);
        let exchange = live.log.exchanges.lock().pop();
        drop(exchange);
    }
    assert_eq!(live.client.closed().0, 1007);
    drop(live);
    world.is_left_empty();
}

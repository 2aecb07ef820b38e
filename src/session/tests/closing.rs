//! Every way a session ends, and what a drain promises.

use super::*;

fn small() -> Setup {
    Setup { limits: Limits { max_messages_in_flight: 1, ..Limits::default() }, ..Setup::default() }
}

#[test]
fn each_breach_has_its_close_code() {
    let world = World::new();
    let cases: [(Vec<u8>, u16, CloseReason); 6] = [
        (frame(TEXT, None, b"not masked"), 1002, CloseReason::ProtocolError),
        (frame(0x83, KEY, b"no such opcode"), 1002, CloseReason::ProtocolError),
        (frame(0x80, KEY, b"continues nothing"), 1002, CloseReason::ProtocolError),
        (frame(TEXT, KEY, b"\xff\xfe"), 1007, CloseReason::InvalidUtf8),
        (frame(TEXT, KEY, &vec![b'x'; 40_000]), 1009, CloseReason::TooBig),
        (frame(0x82, KEY, b"bytes"), 1003, CloseReason::BinaryRefused),
    ];
    for (bytes, code, reason) in cases {
        let mut live = world.open(&Setup::default());
        live.client.text("first");
        assert_eq!(live.client.heard(), "first");
        // What came in the same read before the breach is answered.
        live.client.raw(&[frame(TEXT, KEY, b"second"), bytes].concat());
        assert_eq!(live.client.heard(), "second", "{reason:?}");
        assert_eq!(live.client.closed().0, code, "{reason:?}");
        assert_eq!(live.log.ended(), reason);
    }
    world.is_left_empty();
}

#[test]
fn a_clients_close_is_echoed_and_told() {
    let world = World::new();
    let mut live = world.open(&Setup::default());
    live.client.raw(&close_frame(4_321, "bye"));
    assert_eq!(live.client.closed(), (4_321, "bye".to_owned()));
    assert_eq!(live.log.ended(), CloseReason::ClientClosed { code: 4_321, reason: "bye".into() });
    let mut silent = world.open(&Setup::default());
    silent.client.raw(&frame(CLOSE, KEY, b""));
    assert_eq!(silent.client.closed().0, 0);
    assert_eq!(silent.log.ended(), CloseReason::ClientClosedSilently);
    drop((live, silent));
    world.is_left_empty();
}

#[test]
fn a_closed_session_takes_no_pushes_and_is_told_of_once() {
    let world = World::new();
    let mut live = world.open(&Setup::default());
    std::thread::scope(|scope| {
        let closers: Vec<_> = (0..4).map(|_| scope.spawn(|| live.session.close(&CloseReason::ClosedByApi))).collect();
        let won = closers.into_iter().map(|closer| closer.join().unwrap());
        assert_eq!(won.filter(|won| *won).count(), 1);
    });
    assert_eq!(live.session.push(&text_message("late")), Err(PushError::Gone));
    assert!(world.hub.get(&live.session.id).is_none());
    assert_eq!(live.client.closed(), (1000, "Connection Closed Normally".to_owned()));
    assert_eq!(live.log.ended(), CloseReason::ClosedByApi);
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_close_frame_reaches_a_client_whose_input_was_never_read() {
    let world = World::new();
    let mut live = world.open(&Setup { manner: Manner::Keep, ..small() });
    let block = frame(TEXT, KEY, &vec![b'x'; 30_000]);
    live.client.raw(&block);
    eventually("one is served", || live.log.count() == 1);
    for _ in 0..20 {
        live.client.raw(&block);
    }
    assert!(live.session.close(&CloseReason::ClosedByApi));
    assert_eq!(live.client.closed().0, 1000);
    // A second look at the socket: no reset came either.
    assert!(live.client.tcp.take_error().unwrap().is_none());
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_clients_end_behind_much_unread_input_is_found_without_waiting() {
    let world = World::new();
    let mut live = world.open(&Setup { manner: Manner::Keep, ..small() });
    live.client.text("one");
    eventually("one is served", || live.log.count() == 1);
    // As much as the buffers take, then the end: nothing more will announce itself.
    live.client.tcp.set_nonblocking(true).unwrap();
    let block = frame(TEXT, KEY, &vec![b'x'; 30_000]);
    let mut sent = 0;
    while let Ok(n) = live.client.io.write(&block) {
        sent += n;
    }
    assert!(sent > 4 * 64 * 1024, "{sent}");
    live.client.end_sending();
    let start = Instant::now();
    assert!(live.session.close(&CloseReason::ClosedByApi));
    live.log.exchanges.lock().clear();
    eventually("the socket is let go", || world.hub.stats().parked == 0);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_client_that_does_not_answer_a_close_is_let_go_in_five_seconds() {
    let world = World::new();
    let live = world.open(&Setup::default());
    let start = Instant::now();
    assert!(live.session.close(&CloseReason::ClosedByApi));
    assert_eq!(world.left(), (0, 1, 0));
    world.is_left_empty();
    assert!(start.elapsed() >= Duration::from_millis(4_900), "{:?}", start.elapsed());
}

#[test]
fn a_drain_answers_every_message_that_was_read() {
    let world = World::new();
    for window_bits in [0, 15] {
        let mut live = world.open(&Setup { manner: Manner::DrainSelf, window_bits, ..Setup::default() });
        // One read, several turns: the drain begins in the first.
        let burst: Vec<u8> = (0..500).flat_map(|n: u32| frame(TEXT, KEY, n.to_string().as_bytes())).collect();
        live.client.raw(&burst);
        let read = {
            let mut heard = Vec::new();
            loop {
                let frame = live.client.frame().expect("a close frame comes");
                if frame.first == CLOSE {
                    break;
                }
                heard.push(String::from_utf8(frame.payload).unwrap());
            }
            heard
        };
        assert_eq!(read, live.log.texts());
        assert_eq!(read.len(), 500, "one write of few bytes is one read");
        assert_eq!(live.log.ended(), CloseReason::Draining);
    }
    world.is_left_empty();
}

#[test]
fn a_drain_waits_for_exchanges_and_outbox_and_then_says_going_away() {
    let world = World::new();
    let mut live = world.open(&Setup { manner: Manner::Keep, narrow: true, ..Setup::default() });
    live.client.text("slow");
    eventually("it runs", || live.log.count() == 1);
    world.hub.drain(std::slice::from_ref(&live.session), PATIENCE, &CloseReason::Draining);
    let answer = "x".repeat(200_000);
    live.session.answer(&text_message(&answer)).unwrap();
    assert!(live.session.outbox_bytes() > 0);
    live.log.exchanges.lock().clear();
    assert_eq!(live.client.heard(), answer);
    assert_eq!(live.client.closed(), (1001, "Going away".to_owned()));
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_drain_ends_at_its_grace() {
    let world = World::new();
    let mut live = world.open(&Setup { manner: Manner::Keep, ..Setup::default() });
    live.client.text("never answered");
    eventually("it runs", || live.log.count() == 1);
    world.hub.drain(std::slice::from_ref(&live.session), Duration::from_millis(50), &CloseReason::Draining);
    assert_eq!(live.client.closed().0, 1001);
    live.log.exchanges.lock().clear();
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_hub_that_stops_leaves_nobody_waiting() {
    let world = World::new();
    let mut live: Vec<_> = (0..20).map(|_| world.open(&Setup::default())).collect();
    // Half a message each, so that there is something to give back.
    for one in &mut live {
        one.client.raw(&frame(TEXT, KEY, &[b'x'; 1_000])[..500]);
    }
    eventually("it is charged", || world.hub.stats().budget_used >= 20 * 1_000);
    world.hub.stop();
    world.is_left_empty();
    for one in &live {
        assert_eq!(one.log.ended(), CloseReason::Draining);
    }
    let (_client, server) = loopback(false);
    server.set_nonblocking(true).unwrap();
    let socket = Socket { stream: server, tls: None, unsent: Vec::new(), early: Vec::new(), window_bits: 0 };
    let late = Probe { id: ConnectionId::from_parts(Incarnation::new(2), 7, [0; 5]), log: Arc::clone(&live[0].log) };
    assert_eq!(world.hub.open(late, socket, Vec::new()).map(drop), Err(PushError::Gone));
    assert_eq!(world.left(), (0, 0, 0));
}

#[test]
fn the_end_of_many_at_once_leaves_room_for_others_in_between() {
    use crate::session::lot::Shard;
    use crate::session::mailbox::Mail;
    use crate::session::outbox::Budget;
    use crate::session::slot::Slot;

    const MANY: usize = 600;
    let world = World::new();
    let context = world.runtime.enter();
    let (mut shard, mailbox) = Shard::new(Instant::now(), Arc::new(Budget::new(1 << 20))).unwrap();
    drop(context);
    // Limits that are over as soon as they are looked at.
    let limits = Limits { max_duration: Some(Duration::ZERO), ..Limits::default() };
    let probes: Vec<_> = (0..MANY).map(|_| world.probe(&Setup { limits, ..Setup::default() })).collect();
    let logs: Vec<_> = probes.iter().map(|probe| Arc::clone(&probe.log)).collect();
    let clients: Vec<_> = probes
        .into_iter()
        .map(|probe| {
            let (client, stream) = loopback(false);
            stream.set_nonblocking(true).unwrap();
            let socket = Socket { stream, tls: None, unsent: Vec::new(), early: Vec::new(), window_bits: 0 };
            let session = Session(Arc::new(Slot::new(probe, Arc::clone(&mailbox), socket)));
            mailbox.sessions.fetch_add(1, Ordering::Relaxed);
            assert!(mailbox.send(Mail::Adopt(session, Vec::new())));
            client
        })
        .collect();
    let ended = || logs.iter().filter(|log| log.end().is_some()).count();
    world.runtime.block_on(async {
        let mut alarm = std::pin::pin!(tokio::time::sleep(PATIENCE));
        let (start, mut before) = (Instant::now(), 0);
        while ended() < MANY {
            shard.round(alarm.as_mut()).await.unwrap();
            let now = ended();
            assert!(now - before <= 64, "{} ended in one round", now - before);
            before = now;
            assert!(start.elapsed() < PATIENCE, "{now} of {MANY} ended");
        }
    });
    drop(clients);
}

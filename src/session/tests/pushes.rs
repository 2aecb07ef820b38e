//! Pushes, outboxes and the node's budget.

use super::*;

/// Pushes from several threads to a client that reads slowly, told apart by thread, number and length.
pub(super) fn push_from_many(live: &mut Live) {
    const THREADS: usize = 4;
    const EACH: usize = 300;
    let session = &live.session;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for n in 0..EACH {
                    let text = format!("{thread}:{n}:{}", "p".repeat((n * 97 + thread * 31) % 5_000));
                    let outgoing = text_message(&text);
                    eventually("there is room again", || match session.push(&outgoing) {
                        Ok(()) => true,
                        Err(PushError::Full) => false,
                        Err(PushError::Gone) => panic!("the session is gone"),
                    });
                }
            });
        }
        let mut next = [0; THREADS];
        for _ in 0..THREADS * EACH {
            let text = live.client.heard();
            let mut parts = text.split(':');
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
            let (thread, n) = (number(), number());
            assert_eq!(n, next[thread], "the order of thread {thread}");
            assert_eq!(parts.next().unwrap().len(), (n * 97 + thread * 31) % 5_000);
            next[thread] += 1;
        }
    });
}

#[test]
fn pushes_from_several_threads_stay_whole_and_in_order() {
    let world = World::new();
    let limits = Limits { max_outbox_bytes: 60_000, max_outbox_messages: 40, ..Limits::default() };
    let mut live = world.open(&Setup { narrow: true, limits, ..Setup::default() });
    push_from_many(&mut live);
    eventually("the outbox is empty", || world.hub.stats().budget_used == 0);
    drop(live);
    world.is_left_empty();
}

#[test]
fn replies_and_pushes_do_not_mix() {
    let world = World::new();
    // Room for all of it: a reply that does not fit would end the session, and this client is at times slow.
    let limits = Limits { max_outbox_bytes: 8 << 20, ..Limits::default() };
    let mut live = world.open(&Setup { manner: Manner::Answer(7_000), narrow: true, limits, ..Setup::default() });
    let pusher = live.session.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..200 {
                eventually("a push is taken", || pusher.push(&text_message(&"p".repeat(5_000))).is_ok());
            }
        });
        live.client.raw(&frame(TEXT, KEY, b"?").repeat(200));
        let (mut replies, mut others) = (0, 0);
        while replies + others < 400 {
            let message = live.client.message();
            if message == [b'a'; 7_000] {
                replies += 1;
            } else {
                assert!(message == [b'p'; 5_000], "{} bytes", message.len());
                others += 1;
            }
        }
        assert_eq!((replies, others), (200, 200));
    });
}

#[test]
fn a_full_outbox_refuses_and_takes_again_once_it_is_read() {
    let world = World::new();
    for limits in [
        Limits { max_outbox_bytes: 100_000, ..Limits::default() },
        Limits { max_outbox_messages: 5, ..Limits::default() },
    ] {
        let mut live = world.open(&Setup { narrow: true, limits, ..Setup::default() });
        let mut taken = 0;
        let refused = loop {
            match live.session.push(&text_message(&format!("{taken}:{}", "x".repeat(20_000)))) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, PushError::Full);
        assert!(live.session.is_open() && live.session.outbox_bytes() > 0);
        for n in 0..taken {
            assert!(live.client.heard().starts_with(&format!("{n}:")));
        }
        eventually("it is flushed", || world.hub.stats().budget_used == 0);
        live.session.push(&text_message("again")).unwrap();
        assert_eq!(live.client.heard(), "again");
    }
    world.is_left_empty();
}

#[test]
fn an_answer_that_does_not_fit_ends_the_session() {
    let world = World::new();
    let limits = Limits { max_outbox_bytes: 50_000, ..Limits::default() };
    let live = world.open(&Setup { narrow: true, limits, ..Setup::default() });
    let answer = text_message(&"x".repeat(20_000));
    while live.session.answer(&answer).is_ok() {}
    assert_eq!(live.session.answer(&answer), Err(PushError::Gone));
    assert_eq!(live.log.ended(), CloseReason::SlowConsumer);
    world.is_left_empty();
}

/// Fills a session's outbox with about `bytes`, beyond what its socket takes.
fn fill(live: &Live, bytes: usize) {
    while live.session.outbox_bytes() < bytes {
        live.session.push(&text_message(&"x".repeat(10_000))).unwrap();
    }
}

#[test]
fn who_holds_much_is_given_up_before_those_who_hold_little() {
    // Over two shards: the small holders of one must not pay for the large holder of the other.
    let world = World::with(2, 600_000);
    let setup = Setup { narrow: true, ..Setup::default() };
    let mut small: Vec<_> = (0..10).map(|_| world.open(&setup)).collect();
    for one in &small {
        fill(one, 1);
    }
    let hog = world.open(&setup);
    while hog.session.push(&text_message(&"x".repeat(10_000))).is_ok() {}
    // The other shard looks as well, and first.
    small[1].client.text("?");
    eventually("the hog goes", || hog.log.end() == Some(CloseReason::SlowConsumer));
    let last = text_message("x");
    eventually("there is room again", || small.iter().any(|one| one.session.push(&last).is_ok()));
    let gone = small.iter().filter(|one| !one.session.is_open()).count();
    assert!(gone <= 3, "{gone} of those who hold little were given up");
    drop(small);
    world.is_left_empty();
}

#[test]
fn who_is_closing_gives_up_what_the_node_needs() {
    let world = World::with(1, 300_000);
    let setup = Setup { narrow: true, ..Setup::default() };
    let closing = world.open(&setup);
    fill(&closing, 250_000);
    closing.session.close(&CloseReason::ClosedByApi);
    let other = world.open(&setup);
    let start = Instant::now();
    eventually("the other gets what it needs", || {
        let _may_be_refused = other.session.push(&text_message(&"x".repeat(10_000)));
        other.session.outbox_bytes() > 150_000
    });
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(other.session.is_open());
    drop((closing, other));
    world.is_left_empty();
}

#[test]
fn half_a_message_is_charged_with_the_room_it_takes() {
    let world = World::new();
    let used = || world.hub.stats().budget_used;
    // A header alone makes the room for its whole frame.
    let mut announced = world.open(&Setup::default());
    announced.client.raw(&frame(TEXT, KEY, &vec![b'x'; 30_000])[..8]);
    eventually("the announced frame is charged", || used() >= 30_000);
    drop(announced);
    eventually("it is given back", || used() == 0);
    // What is collected before it can be inflated counts as well.
    let mut collected = world.open(&Setup { window_bits: 15, ..Setup::default() });
    collected.client.raw(&frame(0x41, KEY, &vec![b'x'; 20_000]));
    eventually("collected bytes are charged", || used() >= 20_000);
    drop(collected);
    // And what waits behind a pause.
    let limits = Limits { max_messages_in_flight: 1, ..Limits::default() };
    let mut paused = world.open(&Setup { manner: Manner::Keep, limits, ..Setup::default() });
    paused.client.raw(&frame(TEXT, KEY, &[b'x'; 1_000]).repeat(30));
    for served in 1..=3 {
        eventually("one more is served", || paused.log.count() == served);
        eventually("what waits is charged", || used() >= 30_000);
        let exchange = paused.log.exchanges.lock().pop();
        drop(exchange);
    }
    drop(paused.client);
    eventually("all of it ends", || {
        paused.log.exchanges.lock().clear();
        world.left() == (0, 0, 0)
    });
}

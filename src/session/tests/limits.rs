//! Pings, idle and lifetime limits, stuck writes: the sweep at work, with limits as short as it can tell.

use super::*;

fn with(limits: Limits) -> Setup {
    Setup { limits, ..Setup::default() }
}

#[test]
fn an_idle_session_and_an_old_one_are_told_to_go() {
    let world = World::new();
    let short = Some(Duration::from_millis(10));
    let mut idle = world.open(&with(Limits { idle_timeout: short, ..Limits::default() }));
    let mut old = world.open(&with(Limits { max_duration: short, ..Limits::default() }));
    assert_eq!(idle.client.closed(), (1001, "Going away".to_owned()));
    assert_eq!(old.client.closed(), (1001, "Going away".to_owned()));
    assert_eq!(idle.log.ended(), CloseReason::Idle);
    assert_eq!(old.log.ended(), CloseReason::LifetimeReached);
    drop((idle, old));
    world.is_left_empty();
}

#[test]
fn a_silent_client_is_pinged_and_let_go_when_it_does_not_answer() {
    let world = World::new();
    let limits = Limits { ping_interval: Some(Duration::from_millis(1_500)), ..Limits::default() };
    let (mut answering, mut silent) = (world.open(&with(limits)), world.open(&with(limits)));
    let ping = Some(Frame { first: 0x89, payload: Vec::new() });
    for _ in 0..3 {
        assert_eq!(answering.client.frame(), ping);
        answering.client.raw(&frame(0x8a, KEY, b""));
    }
    assert_eq!(silent.client.frame(), ping);
    eventually("the missing pong is noticed", || silent.log.end().is_some());
    assert_eq!(silent.log.ended(), CloseReason::PongMissing);
    assert_eq!(silent.client.frame(), None, "no close frame for one who does not listen");
    assert!(answering.session.is_open());
    drop(answering);
    world.is_left_empty();
}

#[test]
fn a_write_that_makes_no_progress_ends_the_session() {
    let world = World::new();
    let limits = Limits { write_timeout: Some(Duration::from_millis(100)), ..Limits::default() };
    let live = world.open(&Setup { limits, narrow: true, ..Setup::default() });
    while live.session.push(&text_message(&"x".repeat(30_000))).is_ok() {}
    eventually("it is ended", || live.log.end().is_some());
    assert_eq!(live.log.ended(), CloseReason::SlowConsumer);
    world.is_left_empty();
}

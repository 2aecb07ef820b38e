//! Random lives, side by side: however a session ends, it is told of once and nothing of it is left.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Vanish,
    Reset,
    Api,
    Drain,
    TooBig,
    NotMasked,
    NotUtf8,
    Binary,
    HalfMessageThenVanish,
    UnreadPushesThenVanish,
    UnreadPushesThenApi,
    PausedThenVanish,
    PausedThenApi,
}

const ENDS: [End; 14] = [
    End::Close,
    End::Vanish,
    End::Reset,
    End::Api,
    End::Drain,
    End::TooBig,
    End::NotMasked,
    End::NotUtf8,
    End::Binary,
    End::HalfMessageThenVanish,
    End::UnreadPushesThenVanish,
    End::UnreadPushesThenApi,
    End::PausedThenVanish,
    End::PausedThenApi,
];

impl End {
    /// Brings the end about; the client is gone afterwards.
    fn befall(self, live: Live, world: &World) -> Arc<Log> {
        let Live { mut client, session, log } = live;
        let fill = || while session.push(&text_message(&"f".repeat(20_000))).is_ok() {};
        let pause = |client: &mut Client| {
            *log.manner.lock() = Manner::Keep;
            let before = log.count();
            client.raw(&frame(TEXT, KEY, b"kept").repeat(5));
            eventually("it pauses", || log.count() > before);
        };
        let code = match self {
            Self::Close => {
                client.raw(&close_frame(1000, "done"));
                Some(1000)
            }
            Self::Vanish => None,
            Self::Reset => {
                client.reset();
                return log;
            }
            Self::Api => {
                session.close(&CloseReason::ClosedByApi);
                Some(1000)
            }
            Self::Drain => {
                world.hub.drain(std::slice::from_ref(&session), PATIENCE, &CloseReason::Draining);
                Some(1001)
            }
            Self::TooBig => {
                client.raw(&frame(TEXT, KEY, &vec![b'x'; 32_769]));
                Some(1009)
            }
            Self::NotMasked => {
                client.raw(&frame(TEXT, None, b"x"));
                Some(1002)
            }
            Self::NotUtf8 => {
                client.raw(&frame(TEXT, KEY, b"\xc0"));
                Some(1007)
            }
            Self::Binary => {
                client.raw(&frame(0x82, KEY, b"x"));
                Some(1003)
            }
            Self::HalfMessageThenVanish => {
                client.raw(&frame(0x01, KEY, b"x"));
                client.raw(&frame(0x80, KEY, &[b'y'; 9_000])[..5_000]);
                None
            }
            Self::UnreadPushesThenVanish => {
                fill();
                None
            }
            Self::UnreadPushesThenApi => {
                fill();
                session.close(&CloseReason::ClosedByApi);
                Some(1000)
            }
            Self::PausedThenVanish => {
                pause(&mut client);
                None
            }
            Self::PausedThenApi => {
                pause(&mut client);
                session.close(&CloseReason::ClosedByApi);
                Some(1000)
            }
        };
        if let Some(code) = code {
            assert_eq!(client.closed().0, code, "{self:?}");
        }
        log
    }

    fn is_told_as(self, reason: &CloseReason) -> bool {
        match self {
            Self::Close => matches!(reason, CloseReason::ClientClosed { code: 1000, .. }),
            Self::Vanish
            | Self::Reset
            | Self::HalfMessageThenVanish
            | Self::UnreadPushesThenVanish
            | Self::PausedThenVanish => *reason == CloseReason::ClientVanished,
            Self::Api | Self::UnreadPushesThenApi | Self::PausedThenApi => *reason == CloseReason::ClosedByApi,
            Self::Drain => *reason == CloseReason::Draining,
            Self::TooBig => *reason == CloseReason::TooBig,
            Self::NotMasked => *reason == CloseReason::ProtocolError,
            Self::NotUtf8 => *reason == CloseReason::InvalidUtf8,
            Self::Binary => *reason == CloseReason::BinaryRefused,
        }
    }
}

#[test]
fn however_a_session_ends_it_is_told_of_once_and_nothing_is_left() {
    let world = World::with(2, 64 << 20);
    let tls = sealed::Configs::new();
    let case = (prop::sample::select(&ENDS[..]), 0..4_usize, any::<bool>(), any::<bool>());
    let lives = prop::collection::vec(case, 1..8);
    let outcome = TestRunner::new(ProptestConfig::with_cases(60)).run(&lives, |lives| {
        let ended: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = lives
                .iter()
                .map(|(end, messages, compressed, is_tls)| {
                    let limits = Limits { max_outbox_bytes: 200_000, max_messages_in_flight: 2, ..Limits::default() };
                    let window_bits = if *compressed { 12 } else { 0 };
                    let tls = is_tls.then(|| tls.clone());
                    let setup = Setup { limits, window_bits, tls, narrow: true, ..Setup::default() };
                    let world = &world;
                    scope.spawn(move || {
                        let mut live = world.open(&setup);
                        for n in 0..*messages {
                            live.client.text(&n.to_string());
                            assert_eq!(live.client.heard(), n.to_string());
                        }
                        (*end, end.befall(live, world))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (end, log) in &ended {
            eventually("the end is told", || {
                log.exchanges.lock().clear();
                log.end().is_some()
            });
            let ends = log.ends.lock().clone();
            prop_assert!(ends.len() == 1 && end.is_told_as(&ends[0]), "{:?} {:?}", end, ends);
        }
        world.is_left_empty();
        Ok(())
    });
    outcome.unwrap();
}

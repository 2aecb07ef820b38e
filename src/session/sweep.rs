//! Pings, idle and lifetime limits, slow readers: decided from coarse stamps, driven by time, pure.

use crate::fault::CloseReason;
use crate::limits::Limits;

/// When things last happened to a session, in milliseconds of uptime.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// It opened.
    pub(super) opened: u64,
    /// A data message moved in either direction, or the client pinged.
    pub(super) busy: u64,
    /// Anything came from the client.
    pub(super) heard: u64,
    /// We pinged and heard nothing since; 0 is never.
    pub(super) pinged: u64,
    /// A write has been stuck since; `None` when nothing waits.
    pub(super) stuck: Option<u64>,
    /// Whether reading is paused: a pong may be waiting unread, so its deadline is suspended.
    pub(super) paused: bool,
}

/// What a sweep does with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Leave,
    Ping,
    Close(CloseReason),
}

/// Decides about one session. `spread` (any number, fixed per session) moves its pings so that a million of them do
/// not wake at once.
pub(super) fn decide(now: u64, seen: Seen, limits: &Limits, spread: u64) -> Verdict {
    let passed = |since: u64, limit: Option<std::time::Duration>| {
        limit.is_some_and(|limit| now.saturating_sub(since) >= limit.as_millis() as u64)
    };
    if seen.stuck.is_some_and(|since| passed(since, limits.write_timeout)) {
        return Verdict::Close(CloseReason::SlowConsumer);
    }
    if passed(seen.opened, limits.max_duration) {
        return Verdict::Close(CloseReason::LifetimeReached);
    }
    if passed(seen.busy, limits.idle_timeout) {
        return Verdict::Close(CloseReason::Idle);
    }
    let Some(interval) = limits.ping_interval.map(|i| i.as_millis() as u64) else { return Verdict::Leave };
    if seen.paused {
        return Verdict::Leave;
    }
    if seen.pinged > seen.heard {
        let late = now.saturating_sub(seen.pinged) >= interval;
        return if late { Verdict::Close(CloseReason::PongMissing) } else { Verdict::Leave };
    }
    // Up to an eighth of the interval early, so that sessions opened together drift apart.
    let early = if interval >= 8 { spread % (interval / 8) } else { 0 };
    if now.saturating_sub(seen.heard) >= interval - early { Verdict::Ping } else { Verdict::Leave }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits { ping_interval: Some(Duration::from_secs(30)), ..Limits::default() }
    }

    #[test]
    fn idle_counts_from_the_last_data_and_lifetime_from_the_start() {
        let seen = Seen { opened: 1_000, busy: 50_000, heard: 640_000, ..Seen::default() };
        assert_eq!(decide(649_999, seen, &limits(), 0), Verdict::Leave);
        assert_eq!(decide(650_000, seen, &limits(), 0), Verdict::Close(CloseReason::Idle));
        let busy = Seen { busy: 7_200_000, heard: 7_200_000, ..seen };
        assert_eq!(decide(7_201_000, busy, &limits(), 0), Verdict::Close(CloseReason::LifetimeReached));
    }

    #[test]
    fn none_switches_a_limit_off() {
        let limits = Limits { idle_timeout: None, max_duration: None, write_timeout: None, ..Limits::default() };
        let seen = Seen { stuck: Some(0), ..Seen::default() };
        assert_eq!(decide(u64::MAX, seen, &limits, 0), Verdict::Leave);
    }

    #[test]
    fn a_ping_comes_after_silence_and_a_missing_pong_ends_it() {
        let seen = Seen { busy: 60_000, heard: 10_000, ..Seen::default() };
        assert_eq!(decide(39_999, seen, &limits(), 0), Verdict::Leave);
        assert_eq!(decide(40_000, seen, &limits(), 0), Verdict::Ping);
        let pinged = Seen { pinged: 40_000, ..seen };
        assert_eq!(decide(69_999, pinged, &limits(), 0), Verdict::Leave);
        assert_eq!(decide(70_000, pinged, &limits(), 0), Verdict::Close(CloseReason::PongMissing));
        assert_eq!(decide(70_000, Seen { paused: true, ..pinged }, &limits(), 0), Verdict::Leave);
        assert_eq!(decide(70_000, Seen { heard: 41_000, ..pinged }, &limits(), 0), Verdict::Leave);
    }

    #[test]
    fn pings_are_spread_over_an_eighth_of_the_interval() {
        let seen = Seen { busy: 60_000, heard: 10_000, ..Seen::default() };
        assert_eq!(decide(37_000, seen, &limits(), 3_000), Verdict::Ping);
        assert_eq!(decide(36_000, seen, &limits(), 3_749), Verdict::Leave);
    }

    #[test]
    fn a_stuck_write_ends_the_session_before_anything_else() {
        let seen = Seen { stuck: Some(5_000), ..Seen::default() };
        assert_eq!(decide(64_999, seen, &limits(), 0), Verdict::Ping);
        assert_eq!(decide(65_000, seen, &limits(), 0), Verdict::Close(CloseReason::SlowConsumer));
    }
}

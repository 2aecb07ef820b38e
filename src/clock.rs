//! Wall time, replaceable in tests. Durations use `tokio::time::Instant`; this is for stamps people and back-ends see.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// Milliseconds since 1970-01-01 UTC. Fits 48 bits until the year 10,889.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EpochMillis(pub u64);

impl EpochMillis {
    /// `dd/MMM/yyyy:HH:mm:ss +0000`, the form of `requestTime` in events and access logs (specification 4.2.4).
    pub fn to_request_time(self) -> String {
        let t = self.to_date_time();
        let month = t.month().to_string();
        format!(
            "{:02}/{}/{:04}:{:02}:{:02}:{:02} +0000",
            t.day(),
            month.get(..3).unwrap_or(&month),
            t.year(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// `yyyy-MM-dd'T'HH:mm:ss.SSS'Z'`, the form of `GetConnection` (specification 6.3).
    pub fn to_iso(self) -> String {
        let t = self.to_date_time();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }

    fn to_date_time(self) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    }

    /// Milliseconds from `earlier` to `self`; 0 when the clock was set back in between.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where wall time comes from: the system, or a number the test moves.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now` until [`Clock::advance`] is called on it or on a clone.
    pub fn fixed(now: EpochMillis) -> Self {
        Self(Some(Arc::new(AtomicU64::new(now.0))))
    }

    /// Now.
    pub fn now(&self) -> EpochMillis {
        match &self.0 {
            Some(fixed) => EpochMillis(fixed.load(Ordering::Relaxed)),
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
            None => {
                EpochMillis(std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
            }
        }
    }

    /// Moves a fixed clock; the system's clock is left alone.
    pub fn advance(&self, millis: u64) {
        if let Some(fixed) = &self.0 {
            fixed.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock::fixed" } else { "Clock::system" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_have_the_forms_of_the_specification() {
        let t = EpochMillis(1_650_301_649_973);
        assert_eq!(t.to_request_time(), "18/Apr/2022:17:07:29 +0000");
        assert_eq!(t.to_iso(), "2022-04-18T17:07:29.973Z");
    }

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = Clock::fixed(EpochMillis(5));
        let twin = clock.clone();
        twin.advance(10);
        assert_eq!(clock.now(), EpochMillis(15));
    }
}

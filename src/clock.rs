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

    /// `yyyyMMdd'T'HHmmss'Z'`, the form of request signatures (REST specification 7.6).
    pub fn to_basic_iso(self) -> String {
        let t = self.to_date_time();
        format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// Reads the form of [`EpochMillis::to_basic_iso`]; `None` for any other, and for days there are not.
    pub fn from_basic_iso(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 16 || bytes.get(8) != Some(&b'T') || bytes.get(15) != Some(&b'Z') {
            return None;
        }
        let number = |range: std::ops::Range<usize>| {
            let digits = bytes.get(range)?;
            digits
                .iter()
                .try_fold(0_u16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')))
        };
        let part = |range| number(range).and_then(|n| u8::try_from(n).ok());
        let month = time::Month::try_from(part(4..6)?).ok()?;
        let date = time::Date::from_calendar_date(i32::from(number(0..4)?), month, part(6..8)?).ok()?;
        let moment = date.with_hms(part(9..11)?, part(11..13)?, part(13..15)?).ok()?.assume_utc();
        u64::try_from(moment.unix_timestamp()).ok().map(|seconds| Self(seconds * 1_000))
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
        assert_eq!(t.to_basic_iso(), "20220418T170729Z");
    }

    #[test]
    fn a_stamp_of_a_signature_is_read_in_its_one_form() {
        assert_eq!(EpochMillis::from_basic_iso("20220418T170729Z"), Some(EpochMillis(1_650_301_649_000)));
        for text in [
            "",
            "2022-04-18T17:07:29Z",
            "20220230T000000Z",
            "20221301T000000Z",
            "20220418T240000Z",
            "20220418T170729",
            "20220418t170729z",
            "+0220418T170729Z",
            "20220418T1707 9Z",
            "18991231T000000Z",
        ] {
            assert_eq!(EpochMillis::from_basic_iso(text), None, "{text}");
        }
    }

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = Clock::fixed(EpochMillis(5));
        let twin = clock.clone();
        twin.advance(10);
        assert_eq!(clock.now(), EpochMillis(15));
    }
}

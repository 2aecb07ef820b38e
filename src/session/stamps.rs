//! When things last happened to a session, in as few bytes as limits need.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::sweep::Seen;

/// When things last happened; plain stores, read by the sweep and by `GET @connections`.
///
/// All but `data` are coarse: 32 bits of sixteenths of a second last eight years, and limits need no better.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// Last data message in either direction, in milliseconds of uptime.
    data: AtomicU64,
    opened: Coarse,
    /// Last data message or client ping.
    busy: Coarse,
    /// Last bytes from the client.
    heard: Coarse,
    /// Last ping of ours.
    pinged: Coarse,
}

/// An uptime in sixteenths of a second.
#[derive(Debug, Default)]
struct Coarse(AtomicU32);

impl Coarse {
    fn store(&self, millis: u64) {
        self.0.store((millis * 2 / 125) as u32, Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::from(self.0.load(Ordering::Relaxed)) * 125 / 2
    }
}

impl Stamps {
    pub(super) fn starting(now: u64) -> Self {
        let stamps = Self::default();
        stamps.opened.store(now);
        stamps.heard.store(now);
        stamps.data(now);
        stamps
    }

    /// A data message moved.
    pub(super) fn data(&self, now: u64) {
        self.data.store(now, Ordering::Relaxed);
        self.busy.store(now);
    }

    /// The client pinged.
    pub(super) fn pinged_by_client(&self, now: u64) {
        self.busy.store(now);
    }

    /// We pinged.
    pub(super) fn pinged(&self, now: u64) {
        self.pinged.store(now);
    }

    /// Uptime in milliseconds of the last data message.
    pub(super) fn last_data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// What the sweep asks of the stamps.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            opened: self.opened.millis(),
            busy: self.busy.millis(),
            heard: self.heard.millis(),
            pinged: self.pinged.millis(),
            ..Seen::default()
        }
    }

    /// Bytes came from the client.
    pub(super) fn heard(&self, now: u64) {
        self.heard.store(now);
    }
}

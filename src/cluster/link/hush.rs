//! Says a thing once a minute, however often it happens.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines about the same.
const PAUSE: Duration = Duration::from_secs(60);
/// Things remembered; when more happen within a minute, they are not said.
const REMEMBERED: usize = 256;

/// What was said of late.
///
/// Its lock is held for a map operation.
#[derive(Debug)]
pub(super) struct Hush<K> {
    said: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Hush<K> {
    pub(super) fn new() -> Self {
        Self { said: Mutex::new(HashMap::new()) }
    }

    /// Whether to say it now.
    pub(super) fn may_say(&self, what: K) -> bool {
        self.may_say_at(what, Instant::now())
    }

    fn may_say_at(&self, what: K, now: Instant) -> bool {
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED && !said.contains_key(&what) {
            said.retain(|_, at| now.duration_since(*at) < PAUSE);
            if said.len() >= REMEMBERED {
                return false;
            }
        }
        match said.get(&what) {
            Some(at) if now.duration_since(*at) < PAUSE => false,
            Some(_) | None => {
                said.insert(what, now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_said_once_a_minute_and_only_so_many_are() {
        let hush = Hush::new();
        let now = Instant::now();
        assert!(hush.may_say_at(1, now) && !hush.may_say_at(1, now) && hush.may_say_at(2, now));
        assert!(!hush.may_say_at(1, now + PAUSE / 2));
        let later = now + PAUSE;
        assert!(hush.may_say_at(1, later));
        let said = (1_000..2_000).filter(|n| hush.may_say_at(*n, later)).count();
        assert_eq!(said, REMEMBERED - 1, "what is older than a minute makes room");
    }
}

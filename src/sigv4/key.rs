//! Signing keys: what a secret becomes for one day, region and service.

use std::sync::Arc;

use parking_lot::Mutex;
use ring::hmac;

use super::{Scope, TERMINATOR};
use crate::ids::hex;
use crate::secret::Secret;

/// A key for one day, region and service. Never printed.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Derives it; `date` is `YYYYMMDD`. Four HMACs, so whoever signs often keeps it: [`DerivedKeys`].
    pub fn derive(secret: &Secret, date: &str, scope: Scope<'_>) -> Self {
        let first = zeroize::Zeroizing::new(format!("AWS4{}", secret.reveal()));
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
        for part in [date, scope.region, scope.service, TERMINATOR] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        Self(key)
    }

    /// The signature of a text, in lower-case hexadecimal.
    pub(super) fn sign(&self, text: &str) -> String {
        hex(hmac::sign(&self.0, text.as_bytes()).as_ref())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Keys of one secret that were derived before: today's, and yesterday's around midnight.
#[derive(Debug, Default)]
pub struct DerivedKeys {
    /// The newest first; held for a comparison of short texts, or once a day for a derivation.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// `date/region/service`.
    name: Box<str>,
    key: Arc<SigningKey>,
}

/// Keys kept for a secret: a stranger who names other days or regions must not make it grow.
const KEPT: usize = 4;

impl DerivedKeys {
    /// The key for a day (`YYYYMMDD`) and scope, derived if it is new.
    pub fn get(&self, secret: &Secret, date: &str, scope: Scope<'_>) -> Arc<SigningKey> {
        let is_it = |kept: &Kept| {
            let mut parts = kept.name.split('/');
            parts.next() == Some(date) && parts.next() == Some(scope.region) && parts.next() == Some(scope.service)
        };
        let mut kept = self.kept.lock();
        if let Some(found) = kept.iter().find(|kept| is_it(kept)) {
            return Arc::clone(&found.key);
        }
        let key = Arc::new(SigningKey::derive(secret, date, scope));
        let name = format!("{date}/{}/{}", scope.region, scope.service).into();
        kept.truncate(KEPT - 1);
        kept.insert(0, Kept { name, key: Arc::clone(&key) });
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope<'_> = Scope { region: "us-east-1", service: "execute-api" };

    #[test]
    fn a_kept_key_is_the_derived_one() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let keys = DerivedKeys::default();
        let days = ["20240312", "20240313", "20240312", "20240314", "20240315", "20240316", "20240312"];
        for day in days {
            let key = SigningKey::derive(&secret, day, SCOPE);
            assert_eq!(keys.get(&secret, day, SCOPE).sign("x"), key.sign("x"), "{day}");
            assert!(keys.kept.lock().len() <= KEPT);
        }
        let other = Scope { region: "eu-west-1", ..SCOPE };
        assert_ne!(keys.get(&secret, "20240312", other).sign("x"), keys.get(&secret, "20240312", SCOPE).sign("x"));
    }

    #[test]
    fn a_key_is_never_printed() {
        let keys = DerivedKeys::default();
        keys.get(&Secret::new("s"), "20240312", SCOPE);
        assert!(format!("{keys:?}").contains("***"));
    }
}

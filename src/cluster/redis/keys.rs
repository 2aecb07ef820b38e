//! Every key in Redis, on one page.
//!
//! `p` is the prefix (default `causeway`); what stands in braces is what a Cluster chooses the slot by, so keys with the
//! same braces can stand in one script. `I` is an incarnation in decimal, `B` a bucket.
//!
//! | key | type | holds | lifetime |
//! | --- | --- | --- | --- |
//! | `{p:m}:schema` | string | [`SCHEMA`] | for ever |
//! | `{p:m}:dataset` | string | a random number, set when it is missing | for ever |
//! | `{p:m}:beat` | string | counts joins and renewals of all nodes | for ever |
//! | `{p:m}:nodes` | hash | `I` → the node, JSON | field: join to end |
//! | `{p:m}:leases` | hash | `I` → `expiry:beat`, expiry in ms by Redis's own clock | field: join to end |
//! | `{p:m}:tombs` | string | a bitmap, one bit an incarnation: 2 MiB at most, and soon | for ever |
//! | `{p:m}:graves` | hash | `I` → time of burial in ms by Redis's own clock | field: until swept |
//! | `{p:r:I:B}` | hash | connection id → its context, JSON | field: 101 to after `$disconnect` |
//! | `{p:r:I:B}:c:ID` | string | who claims the record | the claim's lapse |
//! | `p:g:API:NAME` | set | the `I` that have members of the group | member: first to last |
//! | `p:i:I` | set | `API:NAME` of the groups that `I` is entered in | member: a little longer than there |
//! | `p:c:NAME` | string | a shared counter | its period |
//!
//! Nothing has a lifetime that an idle connection would have to renew. Redis must not evict: `maxmemory-policy` is
//! `noeviction`, its default.
//!
//! **Memory.** A record of a browser's connection (`User-Agent` of 101 bytes, an id, an IPv4 address) takes 348 bytes of
//! Redis's memory, keys and tables included, measured with Redis 7.0 over 20,000 of them; 267 when Redis is told to pack
//! hashes of such values (`hash-max-listpack-value 1024`, `hash-max-listpack-entries 256`), at a little more work for
//! each write. The test `a_record_in_redis_has_its_price` holds them below 400 and 300.

use crate::cluster::GroupName;
use crate::cluster::registry::bucket;
use crate::ids::{ConnectionId, Incarnation};

/// The version of everything on this page.
pub(super) const SCHEMA: u32 = 1;

/// What Redis keeps under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Hash,
    Set,
}

impl Kind {
    /// Redis's own name for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Hash => "hash",
            Self::Set => "set",
        }
    }
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Makes keys.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// Longest prefix, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

impl Keys {
    /// Whether a prefix leaves the forms above unambiguous: 1 to 64 characters of `[A-Za-z0-9._-]`.
    pub(super) fn is_prefix(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=MAX_PREFIX_BYTES).contains(&text.len()) && text.bytes().all(plain)
    }

    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    fn member(&self, name: &str, kind: Kind) -> Key {
        Key { name: format!("{{{}:m}}:{name}", self.prefix), kind }
    }

    pub(super) fn schema(&self) -> Key {
        self.member("schema", Kind::String)
    }

    pub(super) fn dataset(&self) -> Key {
        self.member("dataset", Kind::String)
    }

    pub(super) fn beat(&self) -> Key {
        self.member("beat", Kind::String)
    }

    pub(super) fn nodes(&self) -> Key {
        self.member("nodes", Kind::Hash)
    }

    pub(super) fn leases(&self) -> Key {
        self.member("leases", Kind::Hash)
    }

    pub(super) fn tombs(&self) -> Key {
        self.member("tombs", Kind::String)
    }

    pub(super) fn graves(&self) -> Key {
        self.member("graves", Kind::Hash)
    }

    pub(super) fn records(&self, of: Incarnation, bucket: u16) -> Key {
        Key { name: format!("{{{}:r:{}:{bucket}}}", self.prefix, of.get()), kind: Kind::Hash }
    }

    pub(super) fn record(&self, id: &ConnectionId) -> Key {
        self.records(id.incarnation(), bucket(id))
    }

    pub(super) fn claim(&self, id: &ConnectionId) -> Key {
        Key { name: format!("{}:c:{id}", self.record(id).name), kind: Kind::String }
    }

    pub(super) fn group(&self, group: &GroupName) -> Key {
        Key { name: format!("{}:g:{}:{}", self.prefix, group.api, group.name), kind: Kind::Set }
    }

    pub(super) fn groups_of(&self, of: Incarnation) -> Key {
        Key { name: format!("{}:i:{}", self.prefix, of.get()), kind: Kind::Set }
    }

    pub(super) fn counter(&self, name: &str) -> Key {
        Key { name: format!("{}:c:{name}", self.prefix), kind: Kind::String }
    }
}

/// The slot of a key: CRC-16/XMODEM of what stands in its first braces, or of all of it.
pub(in crate::cluster) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        let cases = [("123456789", 12_739), ("foo", 12_182), ("{user1000}.following", 3_443)];
        for (key, expected) in cases {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
    }

    #[test]
    fn what_is_written_in_one_script_has_one_slot() {
        let keys = Keys::new("p".to_owned());
        let members =
            [keys.schema(), keys.dataset(), keys.beat(), keys.nodes(), keys.leases(), keys.tombs(), keys.graves()];
        assert!(members.iter().all(|key| slot(&key.name) == slot("p:m")));
        let id = ConnectionId::from_parts(Incarnation::new(7), 1030, [1, 2, 3, 4, 5]);
        assert_eq!(keys.record(&id).name, "{p:r:7:6}");
        assert_eq!(slot(&keys.record(&id).name), slot(&keys.claim(&id).name));
    }

    #[test]
    fn a_prefix_is_plain() {
        assert!(Keys::is_prefix("causeway") && Keys::is_prefix("a.b-c_1"));
        for text in ["", "a b", "a:b", "{a}", &"a".repeat(65)] {
            assert!(!Keys::is_prefix(text), "{text}");
        }
    }
}

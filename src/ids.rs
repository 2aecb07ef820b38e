//! Identifiers: each exists only in valid form, so that text becomes a type once, at the edge.
//!
//! Connection, request and message ids share one shape: 11 bytes written as URL-safe base64, fifteen characters and
//! a `=` (specification 0.3). A connection id names its owner: three bytes incarnation of the node, three bytes slot,
//! five bytes that cannot be guessed.

use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use siphasher::sip::SipHasher24;

/// Bytes in a connection, request or message id.
pub const ID_BYTES: usize = 11;
/// Characters of an id in text form, the closing `=` included.
pub const ID_CHARS: usize = 16;
/// Sessions one node can name at once: slots are three bytes.
pub const MAX_SLOTS: u32 = 1 << 24;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text does not match `^[A-Za-z0-9_-]{15}=$`; a callback answers 400.
    #[error("not a well-formed id")]
    Malformed,
    /// Well formed, but its two spare bits are set, so no gateway ever handed it out; a callback answers 410.
    #[error("a well-formed id that was never handed out")]
    NeverIssued,
}

fn encode(bytes: [u8; ID_BYTES]) -> [u8; ID_CHARS] {
    let mut text = [b'='; ID_CHARS];
    // 11 bytes always give 15 characters, so the last one stays `=`.
    let _written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
    text
}

fn decode(text: &str) -> Result<[u8; ID_BYTES], IdError> {
    let digits = text.strip_suffix('=').ok_or(IdError::Malformed)?;
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if digits.len() != ID_CHARS - 1 || !digits.bytes().all(alphabet) {
        return Err(IdError::Malformed);
    }
    let mut bytes = [0; ID_BYTES];
    match URL_SAFE_NO_PAD.decode_slice(digits, &mut bytes) {
        Ok(ID_BYTES) => Ok(bytes),
        // The only thing left to be wrong is the last character's two spare bits.
        Ok(_) | Err(_) => Err(IdError::NeverIssued),
    }
}

macro_rules! eleven_byte_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Reads the text form, `^[A-Za-z0-9_-]{15}=$`.
            ///
            /// # Errors
            /// [`IdError::Malformed`] when the pattern does not match, [`IdError::NeverIssued`] when it does but no
            /// gateway can have written it.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }

            /// The eleven bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The text form, without an allocation.
            pub fn text(&self) -> IdText {
                IdText(encode(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text().as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text().as_str())
            }
        }
    };
}

/// An id as text, on the stack.
#[derive(Clone, Copy)]
pub struct IdText([u8; ID_CHARS]);

impl IdText {
    /// The sixteen characters.
    pub fn as_str(&self) -> &str {
        // The alphabet is ASCII, so this cannot fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::ops::Deref for IdText {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

eleven_byte_id! {
    /// Names one client's relation to an API, cluster-wide; says which node owns it and in which slot.
    ConnectionId
}

eleven_byte_id! {
    /// Names one exchange: a connect, a message, a disconnect, a push.
    RequestId
}

eleven_byte_id! {
    /// Names one client message; its last five characters are those of the connection it came on.
    MessageId
}

impl ConnectionId {
    /// Builds an id from its parts; `slot` keeps its low 24 bits.
    pub fn from_parts(incarnation: Incarnation, slot: u32, secret: [u8; 5]) -> Self {
        let [_, i0, i1, i2] = incarnation.0.to_be_bytes();
        let [_, s0, s1, s2] = slot.to_be_bytes();
        let mut bytes = [i0, i1, i2, s0, s1, s2, 0, 0, 0, 0, 0];
        let [.., s6, s7, s8, s9, s10] = &mut bytes;
        [*s6, *s7, *s8, *s9, *s10] = secret;
        Self(bytes)
    }

    /// The start of a node this id was minted by.
    pub fn incarnation(&self) -> Incarnation {
        let [a, b, c, ..] = self.0;
        Incarnation(u32::from_be_bytes([0, a, b, c]))
    }

    /// The slot on that node.
    pub fn slot(&self) -> u32 {
        let [_, _, _, a, b, c, ..] = self.0;
        u32::from_be_bytes([0, a, b, c])
    }

    /// The part that cannot be guessed; equality of whole ids compares it on every use.
    pub fn secret(&self) -> [u8; 5] {
        let [_, _, _, _, _, _, rest @ ..] = self.0;
        rest
    }
}

impl RequestId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The id of a connection's `$disconnect`: always the same, so that a back-end can tell a repeat, whoever makes it.
    pub fn of_end(connection: &ConnectionId) -> Self {
        let mut bytes = [0; ID_BYTES];
        for (n, chunk) in bytes.chunks_mut(8).enumerate() {
            // Keys of no meaning: nothing is kept secret here, the id must only be its own.
            let mut hasher = SipHasher24::new_with_keys(0x6469_7363_6f6e_6e65, n as u64);
            hasher.write(&connection.0);
            let hash = hasher.finish().to_be_bytes();
            for (to, from) in chunk.iter_mut().zip(hash) {
                *to = from;
            }
        }
        Self(bytes)
    }
}

/// A number for one call of a back-end through all its repetitions, and for nobody who cannot name the connection.
pub fn invocation(call: &str, connection: &ConnectionId) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0x696e_766f_6361_7469, 0);
    hasher.write(&connection.0);
    hasher.write(call.as_bytes());
    hasher.finish()
}

impl MessageId {
    /// A fresh random id that ends like its connection's (specification 0.3): 22 bits are shared.
    pub fn random_for(connection: &ConnectionId) -> Self {
        let mut bytes: [u8; ID_BYTES] = random_bytes();
        let ([.., m8, m9, m10], [.., c8, c9, c10]) = (&mut bytes, connection.as_bytes());
        *m8 = (*m8 & 0b1100_0000) | (c8 & 0b0011_1111);
        *m9 = *c9;
        *m10 = *c10;
        Self(bytes)
    }
}

/// Random bytes for ids that need to be unique, from the thread's cryptographic generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' - 10 + n });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// A random UUID, version 4, lower case: the form of `x-amzn-RequestId`.
pub fn random_uuid() -> String {
    let mut b: [u8; 16] = random_bytes();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex(&b);
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

/// One start of a node: 24 bits, handed out by the registry, never reused while old ids may be around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u32);

impl Incarnation {
    /// Keeps the low 24 bits of `value`.
    pub const fn new(value: u32) -> Self {
        Self(value & 0x00ff_ffff)
    }

    /// The number, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Mints connection ids for one incarnation.
///
/// The secret part is a keyed permutation of a counter: ids of one incarnation never repeat (a random part could),
/// and without the key the next one cannot be told from the last. Forty bits through a Feistel network whose round
/// function is SipHash-2-4 under a key drawn at start.
#[derive(Debug)]
pub struct IdMint {
    incarnation: Incarnation,
    keys: [(u64, u64); FEISTEL_ROUNDS],
    counter: AtomicU64,
}

/// Luby and Rackoff ask for four rounds; ten cover the small halves (20 bits) and cost 0.2 µs a connection.
const FEISTEL_ROUNDS: usize = 10;
const HALF: u32 = (1 << 20) - 1;

impl IdMint {
    /// A mint with a fresh key.
    pub fn new(incarnation: Incarnation) -> Self {
        let mut rng = rand::rng();
        let keys = std::array::from_fn(|_| (rng.next_u64(), rng.next_u64()));
        Self { incarnation, keys, counter: AtomicU64::new(rng.next_u64()) }
    }

    /// The incarnation whose ids this mints.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The id for a session in `slot`.
    pub fn mint(&self, slot: u32) -> ConnectionId {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        let [_, _, _, secret @ ..] = self.permute(n & 0xff_ffff_ffff).to_be_bytes();
        ConnectionId::from_parts(self.incarnation, slot, secret)
    }

    fn permute(&self, n: u64) -> u64 {
        let (mut left, mut right) = ((n >> 20) as u32 & HALF, n as u32 & HALF);
        for (k0, k1) in self.keys {
            let mut hasher = SipHasher24::new_with_keys(k0, k1);
            hasher.write_u32(right);
            (left, right) = (right, left ^ (hasher.finish() as u32 & HALF));
        }
        (u64::from(left) << 20) | u64::from(right)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a text.
            ///
            /// # Errors
            /// [`IdError::Malformed`] when it is empty, too long, or has a character outside its alphabet.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let valid: fn(char) -> bool = $valid;
                if text.is_empty() || text.chars().count() > $max || !text.chars().all(valid) {
                    return Err(IdError::Malformed);
                }
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_id! {
    /// Names an API: 1 to 63 characters of `[a-z0-9-]`, so that it can be a host label.
    ApiId, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

text_id! {
    /// Names a stage of an API: 1 to 128 characters of `[A-Za-z0-9_-]`, compared case-sensitively (specification 1.1.3).
    StageName, 128, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

text_id! {
    /// Names a route: `$connect`, `$disconnect`, `$default` or custom; any characters, 1 to 1,024 of them.
    RouteKey, 1024, |_| true
}

impl RouteKey {
    /// Whether the key is one of the three reserved ones.
    pub fn is_reserved(&self) -> bool {
        matches!(self.as_str(), "$connect" | "$disconnect" | "$default")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_round_trip_through_their_text() {
        let id = ConnectionId::from_parts(Incarnation::new(0x00ab_cdef), 0x0012_3456, [1, 2, 3, 4, 5]);
        let text = id.text();
        assert_eq!((text.len(), text.ends_with('=')), (16, true));
        assert_eq!(ConnectionId::parse(&text), Ok(id));
        assert_eq!((id.incarnation().get(), id.slot(), id.secret()), (0x00ab_cdef, 0x0012_3456, [1, 2, 3, 4, 5]));
        assert_eq!(RequestId::parse("L0SPDGiovHcFWMg=").unwrap().to_string(), "L0SPDGiovHcFWMg=");
    }

    #[test]
    fn malformed_and_never_issued_are_told_apart() {
        for text in ["", "WDGT8fY4joECJrQ=test", "L0SPDGiovHcFWMg", "L0SPDGiovHcFW+g=", "L0SPDGiovHcFWMgé="] {
            assert_eq!(ConnectionId::parse(text), Err(IdError::Malformed), "{text}");
        }
        // Same digits but for a spare bit: a second spelling must not reach the first one's connection.
        assert_eq!(ConnectionId::parse("L0SPDGiovHcFWMh="), Err(IdError::NeverIssued));
    }

    #[test]
    fn a_mint_never_repeats_and_does_not_count() {
        let mint = IdMint::new(Incarnation::new(7));
        let ids: Vec<_> = (0..10_000).map(|_| mint.mint(3)).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        let steps: HashSet<_> = ids
            .windows(2)
            .map(|w| {
                let n = |id: &ConnectionId| id.secret().iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
                n(&w[1]).wrapping_sub(n(&w[0]))
            })
            .collect();
        assert!(steps.len() > 9_000, "neighbours are not a fixed step apart");
    }

    #[test]
    fn the_permutation_is_one() {
        let mint = IdMint::new(Incarnation::new(0));
        let images: HashSet<_> = (0..1 << 16).map(|n| mint.permute(n << 11)).collect();
        assert_eq!(images.len(), 1 << 16);
    }

    #[test]
    fn message_ids_end_like_their_connection() {
        let connection = ConnectionId::parse("L0SM9cOFvHcCIhw=").unwrap();
        let message = MessageId::random_for(&connection).to_string();
        assert!(message.ends_with("CIhw="), "{message}");
        assert_ne!(message, MessageId::random_for(&connection).to_string());
    }

    #[test]
    fn the_end_of_a_connection_has_one_id_of_its_own() {
        let mint = IdMint::new(Incarnation::new(7));
        let ids: Vec<_> = (0..1_000).map(|slot| mint.mint(slot)).collect();
        let ends: HashSet<_> = ids.iter().map(RequestId::of_end).collect();
        assert_eq!(ends.len(), ids.len());
        assert_eq!(RequestId::of_end(&ids[0]), RequestId::of_end(&ids[0]));
        assert_ne!(invocation("a", &ids[0]), invocation("a", &ids[1]));
        assert_ne!(invocation("a", &ids[0]), invocation("b", &ids[0]));
    }

    #[test]
    fn uuids_have_their_form() {
        let uuid = random_uuid();
        let parts: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes()[14], b'4');
    }

    #[test]
    fn names_are_checked() {
        assert!(StageName::parse("prod_1-a").is_ok() && StageName::parse("$default").is_err());
        assert!(ApiId::parse("chat").is_ok() && ApiId::parse("Chat").is_err() && ApiId::parse("").is_err());
        assert!(RouteKey::parse("/join room").is_ok() && RouteKey::parse("$connect").unwrap().is_reserved());
    }
}

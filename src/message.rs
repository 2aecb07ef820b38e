//! A client's message or a push: text or binary, cheap to clone, its JSON parsed at most once.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

/// Deepest nesting taken for JSON (specification 3.4.7); a deeper payload counts as not JSON.
pub const MAX_JSON_DEPTH: usize = 512;

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes; only where the API says `binaryFrames: accept`.
    Binary,
}

/// One whole message.
///
/// The payload is shared, never copied: selection, mapping and the integration all read the same bytes.
#[derive(Debug)]
pub struct Message {
    kind: Kind,
    is_base64: bool,
    payload: Bytes,
    json: OnceLock<Option<Value>>,
}

impl Message {
    /// A text message. The caller has proven that `payload` is UTF-8; what is not shows as U+FFFD in [`Message::as_text`].
    pub const fn text_from(payload: Bytes) -> Self {
        Self { kind: Kind::Text, is_base64: false, payload, json: OnceLock::new() }
    }

    /// A text message of a string.
    pub fn from_string(text: impl Into<String>) -> Self {
        Self::text_from(Bytes::from(text.into()))
    }

    /// A binary message.
    pub const fn binary(payload: Bytes) -> Self {
        Self { kind: Kind::Binary, is_base64: false, payload, json: OnceLock::new() }
    }

    /// A text message that holds, as base64, what came as bytes.
    pub fn base64(text: String) -> Self {
        Self { is_base64: true, ..Self::from_string(text) }
    }

    /// Whether the text holds, as base64, what came as bytes.
    pub const fn is_base64(&self) -> bool {
        self.is_base64
    }

    /// Text or binary.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The payload.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload as text; borrowed whenever it is UTF-8, which a text message from a client always is.
    pub fn as_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// Bytes of payload.
    pub const fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether the payload is empty.
    pub const fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The payload as a JSON tree, parsed by `parse` on the first call and remembered; `None` when it is not JSON.
    ///
    /// The parser is the caller's because this floor knows no grammar: `lang::loose` accepts what the service does.
    pub fn json_with(&self, parse: impl FnOnce(&[u8]) -> Option<Value>) -> Option<&Value> {
        self.json.get_or_init(|| parse(&self.payload)).as_ref()
    }
}

impl Clone for Message {
    fn clone(&self) -> Self {
        Self { kind: self.kind, is_base64: self.is_base64, payload: self.payload.clone(), json: self.json.clone() }
    }
}

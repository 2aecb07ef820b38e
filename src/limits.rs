//! What one session may use; set per stage, obeyed by the session engine.

use std::time::Duration;

/// What one session may use. The defaults are those of the service (specification 7) where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Close 1001 after this long without a data message in either direction or a client ping. Default 10 minutes.
    pub idle_timeout: Option<Duration>,
    /// Close 1001 at this age. Default 2 hours.
    pub max_duration: Option<Duration>,
    /// Send a ping after this long without input; no pong within another one closes 1006. Default none.
    pub ping_interval: Option<Duration>,
    /// Payload of a whole message, both directions. Default 131,072 bytes.
    pub max_message_bytes: usize,
    /// Payload of a frame from the client; outgoing messages are split at it too. Default 32,768 bytes.
    pub max_frame_bytes: usize,
    /// Messages of one connection being served at once; then reading pauses. Default 128.
    pub max_messages_in_flight: u16,
    /// Bytes waiting for a client that does not read; then pushes get 429. Default 1 MiB.
    pub max_outbox_bytes: usize,
    /// Messages waiting for a client that does not read. Default 4,096.
    pub max_outbox_messages: usize,
    /// Close 1006 when a write made no progress for this long. Default 60 s.
    pub write_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(600)),
            max_duration: Some(Duration::from_secs(7_200)),
            ping_interval: None,
            max_message_bytes: 131_072,
            max_frame_bytes: 32_768,
            max_messages_in_flight: 128,
            max_outbox_bytes: 1 << 20,
            max_outbox_messages: 4_096,
            write_timeout: Some(Duration::from_secs(60)),
        }
    }
}

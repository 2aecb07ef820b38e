//! What is sent: the same 64 bytes to everybody.

/// Bytes of an ordinary message and of every answer to one.
pub const BYTES: usize = 64;

/// What the back-end answers, and the `echo` route of `routes/load.yaml`.
pub const ANSWER: &str = r#"{"action":"answer","text":"this is a constant of 64 bytes....."}"#;

/// A JSON message of [`BYTES`] bytes for a route, and for a group of its choice.
pub fn message(action: &str, group: &str) -> String {
    padded(action, group, BYTES)
}

/// The same, with as many bytes as wanted.
pub fn padded(action: &str, group: &str, bytes: usize) -> String {
    let (head, tail) = (format!(r#"{{"action":"{action}","group":"{group}","pad":""#), r#""}"#);
    let pad = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_same_size() {
        assert_eq!(ANSWER.len(), BYTES);
        for (action, group) in [("echo", ""), ("proxy", ""), ("join", "fan"), ("say", "slow")] {
            let message = message(action, group);
            assert_eq!(message.len(), BYTES, "{message}");
            serde_json::from_str::<serde_json::Value>(&message).unwrap();
        }
    }

    #[test]
    fn the_route_answers_what_the_back_end_does() {
        let routes = include_str!("../routes/load.yaml");
        assert!(routes.contains(ANSWER), "routes/load.yaml and ANSWER differ");
    }
}

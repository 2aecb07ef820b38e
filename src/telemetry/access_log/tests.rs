//! Lines as an operator reads them, and a log that never makes its callers wait.

use std::borrow::Cow;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use super::*;
use crate::clock::EpochMillis;
use crate::ids::{ConnectionId, MessageId, RequestId};

const PATIENCE: Duration = Duration::from_secs(20);

fn entry<'a>(event_type: &'a str, route_key: &'a str, request: &str) -> Entry<'a> {
    let time = EpochMillis(1_650_301_649_973);
    let mut entry = Entry::new(event_type, "a1b2c3d4e5", "prod", RequestId::parse(request).unwrap(), time);
    entry.route_key = Some(route_key);
    entry.connection_id = Some(ConnectionId::parse("L0SM9cOFvHcCIhw=").unwrap());
    entry.source_ip = Some("192.0.2.1".parse().unwrap());
    entry.status = Some(200);
    entry
}

fn line(format: &Format, entry: &Entry<'_>) -> String {
    let mut buf = Vec::new();
    format.render(&mut buf, entry);
    String::from_utf8(buf).unwrap()
}

fn render(format: &str, entry: &Entry<'_>) -> String {
    line(&Format::compile(&format!("{format}|$context.requestId")).unwrap(), entry)
        .strip_suffix("|L0SPDGiovHcFWMg=")
        .unwrap()
        .to_owned()
}

// checklist: 290
#[test]
fn the_default_format_gives_the_recorded_line() {
    let connect = entry("CONNECT", "$connect", "L0SM9GZ3PHcFWMg=");
    assert_eq!(
        line(&Format::default(), &connect),
        r#"192.0.2.1 - - [18/Apr/2022:17:07:29 +0000] "CONNECT $connect L0SM9cOFvHcCIhw=" 200 L0SM9GZ3PHcFWMg="#
    );
    let message = entry("MESSAGE", "sendMessage", "L0SPDGiovHcFWMg=");
    assert!(
        line(&Format::default(), &message).contains(r#""MESSAGE sendMessage L0SM9cOFvHcCIhw=" 200 L0SPDGiovHcFWMg="#)
    );
}

// checklist: 291
#[test]
fn a_callback_names_its_route_literally() {
    let push = entry("CONNECTION_API", "POST /@connections/{connectionId}", "L0SPDGiovHcFWMg=");
    let text = render("$context.eventType $context.routeKey", &push);
    assert_eq!(text, "CONNECTION_API POST /@connections/{connectionId}");
}

// checklist: 289
#[test]
fn what_has_no_value_and_what_nobody_knows_is_a_dash() {
    let mut bare = entry("MESSAGE", "", "L0SPDGiovHcFWMg=");
    (bare.route_key, bare.connection_id, bare.source_ip, bare.status) = (None, None, None, None);
    for path in [
        "routeKey",
        "connectionId",
        "messageId",
        "identity.sourceIp",
        "identity.userAgent",
        "status",
        "connectedAt",
        "domainName",
        "error.message",
        "error.messageString",
        "error.responseType",
        "integrationLatency",
        "integration.latency",
        "integration.status",
        "integration.integrationStatus",
        "integration.error",
        "integration.requestId",
        "authorizer.principalId",
        "httpMethod",
        "responseLength",
        "no.such",
        "waf.status",
    ] {
        assert_eq!(render(&format!("<$context.{path}>"), &bare), "<->", "{path}");
    }
}

#[test]
fn every_variable_of_an_exchange_has_its_value() {
    let mut full = entry("MESSAGE", "order", "L0SPDGiovHcFWMg=");
    full.message_id = Some(MessageId::parse("L0SPDGiovHcFWMg=").unwrap());
    full.user_agent = Some("curl/8");
    full.domain_name = Some("chat.example.com");
    full.connected_at = Some(EpochMillis(7));
    full.status = Some(504);
    full.error = Some(ErrorFields { message: "Endpoint request timed out", response_type: "INTEGRATION_TIMEOUT" });
    full.integration = IntegrationFields {
        latency: Some(Duration::from_micros(29_000_700)),
        status: Some(503),
        service_status: Some(200),
        error: Some("timed out"),
        request_id: Some("abc"),
    };
    let more = |path: &str| match path {
        "authorizer.tenant" => Some(Cow::Borrowed("blue")),
        "identity.caller" => Some(Cow::Owned("ann".to_owned())),
        _ => None,
    };
    full.more = Some(&more);
    for (path, expected) in [
        ("apiId", "a1b2c3d4e5"),
        ("authorizer.tenant", "blue"),
        ("connectedAt", "7"),
        ("connectionId", "L0SM9cOFvHcCIhw="),
        ("domainName", "chat.example.com"),
        ("error.message", "Endpoint request timed out"),
        ("error.messageString", "\"Endpoint request timed out\""),
        ("error.responseType", "INTEGRATION_TIMEOUT"),
        ("eventType", "MESSAGE"),
        ("extendedRequestId", "L0SPDGiovHcFWMg="),
        ("identity.caller", "ann"),
        ("identity.sourceIp", "192.0.2.1"),
        ("identity.userAgent", "curl/8"),
        ("integration.error", "timed out"),
        ("integration.integrationStatus", "200"),
        ("integration.latency", "29000"),
        ("integration.requestId", "abc"),
        ("integration.status", "503"),
        ("integrationLatency", "29000"),
        ("messageId", "L0SPDGiovHcFWMg="),
        ("requestId", "L0SPDGiovHcFWMg="),
        ("requestTime", "18/Apr/2022:17:07:29 +0000"),
        ("requestTimeEpoch", "1650301649973"),
        ("routeKey", "order"),
        ("stage", "prod"),
        ("status", "504"),
    ] {
        assert_eq!(render(&format!("$context.{path}."), &full), format!("{expected}."), "{path}");
    }
}

#[test]
fn a_value_cannot_end_its_line_or_its_quotes() {
    let mut evil = entry("MESSAGE", "x", "L0SPDGiovHcFWMg=");
    let agent = "a\nb\r\"c\\\t\u{1b}[31m\u{85}\u{2028}é😀";
    evil.user_agent = Some(agent);
    let text = render(r#"{"agent":"$context.identity.userAgent"}"#, &evil);
    assert!(!text.chars().any(|c| c.is_control() || c == '\u{2028}'), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["agent"], agent, "and a reader of JSON gets it back");
    let long = "é".repeat(5000);
    evil.user_agent = Some(&long);
    assert_eq!(render("$context.identity.userAgent", &evil).len(), 1024);
}

#[test]
fn numbers_and_addresses_look_as_everywhere() {
    let mut one = entry("MESSAGE", "x", "L0SPDGiovHcFWMg=");
    for number in [0, 9, 10, 1_650_301_649_973, u64::MAX] {
        one.time = EpochMillis(number);
        assert_eq!(render("$context.requestTimeEpoch", &one), number.to_string());
    }
    for address in ["0.0.0.0", "255.1.20.3", "::1", "2001:db8::ff"] {
        one.source_ip = Some(address.parse().unwrap());
        assert_eq!(render("$context.identity.sourceIp", &one), address);
    }
}

#[test]
fn a_format_is_checked_when_it_is_compiled() {
    assert_eq!(Format::compile("$context.status").unwrap_err(), FormatError::NoRequestId);
    assert_eq!(Format::compile("$context.requestId\n").unwrap_err(), FormatError::NotOneLine);
    let long = format!("$context.requestId{}", "x".repeat(4000));
    assert!(matches!(Format::compile(&long), Err(FormatError::TooLong(4018))));
    assert!(Format::compile("$context.extendedRequestId").is_ok());
    assert!(Format::compile(DEFAULT).is_ok());
    let odd = entry("MESSAGE", "x", "L0SPDGiovHcFWMg=");
    assert_eq!(render("$ $context $context. $$context.stage$context.stage", &odd), "$ $context $context. $prodprod");
}

/// An output that waits for permission before each write.
struct Gated {
    permission: Receiver<()>,
    written: SyncSender<Vec<u8>>,
}

impl Write for Gated {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !buf.is_empty() {
            self.permission.recv().map_err(io::Error::other)?;
            self.written.send(buf.to_vec()).map_err(io::Error::other)?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Gated {}

#[tokio::test]
async fn a_stuck_writer_costs_lines_and_nothing_else() {
    let tasks = Tasks::new();
    let (permit, permission) = sync_channel(10_000);
    let (written, lines) = sync_channel(10_000);
    let dropped = Counter::default();
    let log = AccessLog::start(Gated { permission, written }, &tasks, dropped.clone()).unwrap();
    let line = [b'x'; 99];
    let total = 100_000_u64;
    // Ten megabytes, none of which can be written: this returns.
    for _ in 0..total {
        log.append(|buf| buf.extend_from_slice(&line));
    }
    let lost = dropped.get();
    assert!(lost > 0);
    let bound = ((QUEUE + 2) * (BATCH_BYTES + 100) + MAX_BATCH_BYTES) as u64;
    assert!((total - lost) * 100 <= bound, "{} lines kept", total - lost);
    for _ in 0..10_000 {
        permit.send(()).unwrap();
    }
    log.close();
    assert_eq!(tasks.drain(PATIENCE).await, 0);
    let kept: usize = lines.try_iter().map(|batch| batch.len() / 100).sum();
    assert_eq!(kept as u64 + dropped.get(), total, "every line is written or counted");
}

#[tokio::test]
async fn lines_arrive_whole_and_in_order_from_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let tasks = Tasks::new();
    let dropped = Counter::default();
    let log = AccessLog::open(&Target::File(path.clone()), &tasks, dropped.clone()).unwrap();
    assert!(log.is_on());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for i in 0..5000 {
                    log.append(|buf| buf.extend_from_slice(format!("{thread} {i:060}").as_bytes()));
                }
            });
        }
    });
    log.close();
    assert_eq!(tasks.drain(PATIENCE).await, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    for thread in 0..4 {
        let own: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} "))).collect();
        assert!(own.is_sorted(), "the lines of thread {thread} are out of order");
    }
    assert_eq!(text.lines().count() as u64 + dropped.get(), 20_000);
    log.append(|buf| buf.push(b'x'));
    assert_eq!(text.lines().count() as u64 + dropped.get(), 20_001, "after the close");
}

#[tokio::test]
async fn a_line_is_written_within_a_second_without_more_coming() {
    let tasks = Tasks::new();
    let (permit, permission) = sync_channel(1);
    let (written, lines) = sync_channel(1);
    let log = AccessLog::start(Gated { permission, written }, &tasks, Counter::default()).unwrap();
    permit.send(()).unwrap();
    log.append(|buf| buf.extend_from_slice(b"alone"));
    assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), b"alone\n");
    // The last handle going away ends the writer too, with what is there.
    permit.send(()).unwrap();
    log.append(|buf| buf.extend_from_slice(b"last"));
    drop(log);
    assert_eq!(tasks.drain(PATIENCE).await, 0);
    assert_eq!(lines.try_recv().unwrap(), b"last\n");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let tasks = Tasks::new();
    let log = AccessLog::open(&Target::File(path.clone()), &tasks, Counter::default()).unwrap();
    std::fs::rename(&path, &old).unwrap();
    log.reopen();
    log.append(|buf| buf.extend_from_slice(b"new"));
    log.close();
    assert_eq!(tasks.drain(PATIENCE).await, 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "");
}

#[tokio::test]
async fn a_log_that_is_off_renders_nothing() {
    let log = AccessLog::open(&Target::Off, &Tasks::new(), Counter::default()).unwrap();
    log.append(|_| panic!("rendered"));
    assert!(!log.is_on());
    for (text, target) in [("off", Target::Off), ("-", Target::Stdout), ("a/b", Target::File("a/b".into()))] {
        assert_eq!(text.parse(), Ok(target));
    }
    let missing = AccessLog::open(&Target::File("/nowhere/a.log".into()), &Tasks::new(), Counter::default());
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

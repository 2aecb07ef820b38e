//! One function for each parser of foreign bytes: what it must never do, and what must always be true of it.
//!
//! The libFuzzer targets and the replay of the kept corpora (`tests/corpora.rs`) both call these. A function returns
//! normally for every input; a panic is a finding.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use causeway::clock::EpochMillis;
use causeway::definition::{self, empty_environment};
use causeway::fuzzing::{Opening, client, link_frames, link_hello, listen, opening, proxy_header as read_header};
use causeway::gateway::is_loopback_name;
use causeway::ids::{ConnectionId, RouteKey};
use causeway::lang::policy::{Facts, Kind, Policy, Question, Verdict};
use causeway::lang::{JsonPath, Selection, Template, Variable, Variables, loose};
use causeway::limits::Limits;
use causeway::message::Message;
use causeway::routing::websocket::WebSocketRoutes;
use causeway::secret::Secret;
use causeway::server::{ForwardedHeader, Networks};
use causeway::session::negotiate;
use causeway::session::tls::{TlsSession, TlsStatus};
use causeway::sigv4::{self, Claim, Credentials, DerivedKeys, Expected, Scope};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

/// A target: its name, which is its corpus folder's too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("selection", selection),
    ("jsonpath", jsonpath),
    ("template", template),
    ("loose_json", loose_json),
    ("routes", routes),
    ("definition", definition),
    ("frames", frames),
    ("head", head),
    ("forwarded", forwarded),
    ("proxy_header", proxy_header),
    ("ids", ids),
    ("offer", offer),
    ("tls", tls),
    ("link", link),
    ("policy", policy),
    ("signature", signature),
];

/// Splits an input in two texts at its first line end.
fn two_texts(data: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(data).ok()?;
    Some(text.split_once('\n').unwrap_or((text, "")))
}

/// First line a selection expression, the rest a payload: bounded, the same every time, and for a single member path
/// what the JSONPath of that name finds.
pub fn selection(data: &[u8]) {
    let Some((expression, payload)) = two_texts(data) else { return };
    let Ok(selection) = Selection::parse(expression) else { return };
    assert_eq!(selection.as_str(), expression);
    let message = Message::from_string(payload);
    let first = selection.evaluate(&message);
    if let Ok(text) = &first {
        assert!(text.len() <= causeway::lang::selection::MAX_RESULT_BYTES);
    }
    // A tree that was parsed for somebody else changes nothing.
    let parsed = Message::from_string(payload);
    let is_json = parsed.json_with(loose::parse).is_some();
    let second = selection.evaluate(&parsed);
    assert_eq!(first, second, "{expression:?} on {payload:?}");
    assert!(is_json || second.is_err() || !selection.needs_body(), "{expression:?} on what is not JSON");
    let path = expression.strip_prefix("$request.body.").filter(|path| path.bytes().all(|b| b.is_ascii_alphanumeric()));
    if let (Some(path), Ok(text), Some(tree)) = (path, &second, parsed.json_with(loose::parse))
        && let Ok(path) = JsonPath::compile(path)
    {
        assert_eq!(**text, path.find(tree).to_text().unwrap_or_default(), "{expression:?} on {payload:?}");
    }
}

/// First line an action and a resource with a space between, the rest a policy: whatever it is, evaluating it ends, and a
/// statement that denies everything makes every answer a denial.
pub fn policy(data: &[u8]) {
    let Some((question, document)) = two_texts(data) else { return };
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(document) else { return };
    let (action, resource) = question.split_once(' ').unwrap_or((question, ""));
    let own = "arn:aws:execute-api:us-east-1:123456789012:chat";
    for kind in [Kind::Identity, Kind::Resource] {
        let Ok(policy) = Policy::parse(&document, kind) else { continue };
        let question = Question { action, resource, own, principals: &["arn:aws:iam::1:user/a"], facts: &Fixed };
        assert_eq!(policy.evaluate(&question), policy.evaluate(&question));
    }
    let deny = serde_json::json!({"Effect": "Deny", "Action": "*", "Resource": "*"});
    if let Some(serde_json::Value::Array(statements)) = document.get_mut("Statement") {
        statements.push(deny);
        if let Ok(policy) = Policy::parse(&document, Kind::Identity) {
            let question = Question { action, resource, own, principals: &[], facts: &Fixed };
            assert_eq!(policy.evaluate(&question), Verdict::Deny);
        }
    }
}

impl Facts for Fixed {
    fn values(&self, key: &str) -> Vec<Cow<'_, str>> {
        match key {
            "aws:sourceip" => vec!["192.0.2.7".into()],
            "aws:username" => vec!["a*?${aws:username}".into()],
            "aws:many" => vec!["1".into(), "2020-04-01T00:00:00Z".into(), "true".into()],
            _ => Vec::new(),
        }
    }
}

/// Lines: method, path, query, then headers as `name: value`, an empty line, a body. Nobody here knows the secret, so
/// nothing that is read may verify; and what ours signs of it must.
pub fn signature(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, query) = (next(), next(), next());
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let scope = Scope { region: "us-east-1", service: "execute-api" };
    let (secret, keys) = (Secret::new("a secret that nobody knows"), DerivedKeys::default());
    let expected = Expected { secret: &secret, keys: &keys, scope, hosts: &[] };
    let now = EpochMillis(1_710_270_238_000);
    let request = sigv4::Request { method, path, query, headers: &headers };
    if let Ok(claim) = Claim::read(&request, scope) {
        let _refused = claim.check(&request, now);
        assert!(claim.verify(&request, body.as_bytes(), &expected).is_err());
    }
    let is_ours = |name: &str| !["authorization", "x-amz-date", "x-amz-content-sha256"].contains(&name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut headers: Vec<(&str, &str)> = headers
        .into_iter()
        .filter(|(name, _)| !name.is_empty() && name.chars().all(is_plain) && !name.eq_ignore_ascii_case("host"))
        .filter(|(name, _)| is_ours(&name.to_ascii_lowercase()) && !name.eq_ignore_ascii_case("x-amz-security-token"))
        .take(20)
        .collect();
    headers.push(("host", "h"));
    if query.contains("X-Amz-") || query.contains('%') || path.contains("/.") || path.contains("%2") {
        return;
    }
    let unsigned = sigv4::Request { method, path, query, headers: &headers };
    let credentials = Credentials { access_key: "AKIA".into(), secret: secret.clone(), session_token: None };
    let added = sigv4::sign(&credentials, &keys, scope, &unsigned, body.as_bytes(), now);
    let mut signed = headers.clone();
    signed.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    let request = sigv4::Request { headers: &signed, ..unsigned };
    let claim = Claim::read(&request, scope).expect("ours is whole");
    claim.check(&request, now).expect("ours is of now");
    claim.verify(&request, body.as_bytes(), &expected).expect("ours is right");
    let longer = format!("{body}.");
    assert!(claim.verify(&request, longer.as_bytes(), &expected).is_err());
}

/// First line a JSONPath, the rest a document.
pub fn jsonpath(data: &[u8]) {
    let Some((path, document)) = two_texts(data) else { return };
    let Ok(path) = JsonPath::compile(path) else { return };
    let Some(tree) = loose::parse(document.as_bytes()) else { return };
    let all = path.query(&tree);
    assert_eq!(path.first(&tree), all.first().copied());
    if path.is_root() {
        assert_eq!(all, [&tree]);
    }
    let _text = path.find(&tree).to_text();
}

struct Fixed;

impl Variables for Fixed {
    fn context(&self, path: &str) -> Option<Variable<'_>> {
        match path {
            "connectionId" => Some(Variable::Text("L0SM9cOFvHcCIhw=".into())),
            "requestTimeEpoch" => Some(Variable::Number(1_650_301_649_000)),
            _ => None,
        }
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        (name == "backend").then_some("https://example.com")
    }

    fn headers(&self, _name: &str) -> Vec<&str> {
        vec!["one", "two"]
    }

    fn query(&self, _name: &str) -> Vec<&str> {
        Vec::new()
    }
}

/// A mapping template, a zero byte, a payload.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (template, payload) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(compiled) = Template::compile(template) else { return };
    let rendered = compiled.render(&Fixed, &Message::from_string(payload));
    if !template.contains(['$', '#', '\\']) {
        assert_eq!(rendered.as_deref().ok(), Some(template));
    }
}

/// What strict JSON is, loose JSON is too, with the same meaning; and what was understood can be written and read.
pub fn loose_json(data: &[u8]) {
    let understood = loose::parse(data);
    if let Ok(strict) = serde_json::from_slice::<serde_json::Value>(data) {
        assert_eq!(understood.as_ref(), Some(&strict));
    }
    if let Some(value) = understood {
        let written = value.to_string();
        assert_eq!(loose::parse(written.as_bytes()), Some(value), "{written}");
    }
}

/// A payload against the usual kinds of expressions: the route taken is the one its expression names, or `$default`.
pub fn routes(data: &[u8]) {
    static TABLES: OnceLock<Vec<WebSocketRoutes<()>>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        let keys = ["join", "say", "7", "true", "[a, b]", "chat/join", "$default"];
        let expressions = [
            "$request.body.action",
            "${request.body.service}/${request.body.action}",
            "$request.body.list",
            "$request.body.list[1]",
            "$request.body.data.room",
            "$context.routeKey",
            "join",
        ];
        let table = |expression: &str| {
            let keys = keys.iter().filter_map(|key| Some((RouteKey::parse(key).ok()?, ())));
            WebSocketRoutes::new(Selection::parse(expression).expect("an expression"), keys)
        };
        expressions.into_iter().map(table).collect()
    });
    let Ok(payload) = std::str::from_utf8(data) else { return };
    let message = Message::from_string(payload);
    for table in tables {
        let selected = table.select(&message).expect("there is a $default").key.as_str();
        let named = table.selection().evaluate(&message).unwrap_or_default();
        assert!(selected == named || selected == "$default", "{selected} for {named}");
        let is_key = table.iter().any(|(key, ())| key.as_str() == named && !key.is_reserved());
        let is_json = message.json_with(loose::parse).is_some();
        if is_key && is_json {
            assert_eq!(selected, named);
        }
    }
}

/// A definition file: a whole snapshot, or problems that each say something.
pub fn definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What a file reference names is read from the machine this runs on.
    if text.contains("file:") {
        return;
    }
    match definition::load_texts([("fuzz.yaml", text)], &empty_environment) {
        Ok(snapshot) => {
            let printed = definition::print_routes(&snapshot);
            assert!(!printed.is_empty());
        }
        Err(problems) => {
            let told = problems.to_string();
            assert!(told.starts_with("fuzz.yaml"), "{told:?}");
        }
    }
}

/// First byte how the stream is cut and whether compression was negotiated, the rest what a client sends: any cut gives
/// the same messages, answers and end, and between messages nothing is held.
pub fn frames(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let limits = Limits { max_message_bytes: 4_096, max_frame_bytes: 1_024, ..Limits::default() };
    for compressed in [false, true] {
        let whole = listen([stream], compressed, &limits);
        for (_, payload) in &whole.messages {
            assert!(payload.len() <= limits.max_message_bytes);
        }
        let size = usize::from(how & 0x3f) + 1;
        let cut = listen(stream.chunks(size), compressed, &limits);
        assert_eq!(whole, cut, "in pieces of {size}");
        let single = listen(stream.chunks(1), compressed, &limits);
        assert_eq!(whole, single, "byte by byte");
    }
}

/// The head of a request: never longer than allowed, and the same whatever follows it.
pub fn head(data: &[u8]) {
    const MAX_BYTES: usize = 2_048;
    let parsed = opening(data, MAX_BYTES);
    if let Opening::Head(_, _, headers, length) = &parsed {
        assert!(*length <= MAX_BYTES && *length <= data.len());
        assert_eq!(opening(&data[..*length], MAX_BYTES), parsed);
        assert_eq!(opening(&data[..*length - 1], MAX_BYTES), Opening::Partial);
        for (name, value) in headers {
            assert!(!name.is_empty() && !value.contains(['\r', '\n']), "{name:?}: {value:?}");
            let _answer = is_loopback_name(value);
        }
    }
    // Once refused, more bytes do not make it right.
    for cut in [data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
        if let Opening::Refused(_) = opening(&data[..cut], MAX_BYTES) {
            assert!(!matches!(parsed, Opening::Head(..)), "refused at {cut} bytes, accepted whole");
        }
    }
}

/// The start of a connection that a proxy opens: the same whatever follows the header, and never whole before its end.
pub fn proxy_header(data: &[u8]) {
    let read = read_header(data);
    if let Ok(Some((length, _))) = &read {
        assert!(*length <= data.len() && *length <= 536, "{length}");
        assert_eq!(read_header(&data[..*length]), read);
        assert_eq!(read_header(&data[..*length - 1]), Ok(None));
    }
    // Once it is none, more bytes do not make it one.
    for cut in [data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
        assert!(read_header(&data[..cut]).is_ok() || read.is_err(), "refused at {cut} bytes, accepted whole");
    }
}

/// What a client writes into the headers that name it: for a stranger nothing comes of it, and behind a proxy that
/// appends what it saw, that is the client.
pub fn forwarded(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let trusted = Networks::parse("10.0.0.0/24").expect("a network");
    let address = |bytes: [u8; 4]| std::net::IpAddr::from(bytes);
    let (proxy, seen, stranger) = (address([10, 0, 0, 1]), address([192, 0, 2, 1]), address([192, 0, 2, 66]));
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.last().copied().unwrap_or_default();
    for (header, appended) in
        [(ForwardedHeader::XForwardedFor, "192.0.2.1"), (ForwardedHeader::Forwarded, "for=\"192.0.2.1:5\";proto=https")]
    {
        assert_eq!(client(header, &lines, stranger, &trusted), stranger);
        let new_line = [&lines[..], &[appended]].concat();
        assert_eq!(client(header, &new_line, proxy, &trusted), seen);
        let joined = format!("{last}, {appended}");
        let same_line = [&lines[..lines.len().saturating_sub(1)], &[joined.as_str()]].concat();
        assert_eq!(client(header, &same_line, proxy, &trusted), seen);
        let _whatever = client(header, &lines, proxy, &trusted);
    }
}

/// An id reads only in the form it is written in.
pub fn ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = ConnectionId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Some((numbers, rest)) = data.split_first_chunk::<8>()
        && let Some(secret) = rest.first_chunk::<5>()
    {
        let numbers = u64::from_be_bytes(*numbers);
        let (incarnation, slot) = ((numbers >> 32) as u32, numbers as u32 % causeway::ids::MAX_SLOTS);
        let id = ConnectionId::from_parts(causeway::ids::Incarnation::new(incarnation), slot, *secret);
        assert_eq!(ConnectionId::parse(&id.to_string()), Ok(id));
        assert_eq!((id.slot(), id.secret()), (slot, *secret));
    }
    let _key = RouteKey::parse(text);
}

/// Lines of `Sec-WebSocket-Extensions`: whatever is agreed on was offered, and says so in a form of its own.
pub fn offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(agreement) = negotiate(text.lines()) else { return };
    assert!((9..=15).contains(&agreement.server_window_bits), "{agreement:?}");
    assert!(text.to_ascii_lowercase().contains("permessage-deflate"));
    let mut expected = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
    if agreement.response.contains("server_max_window_bits") {
        let _infallible = write!(expected, "; server_max_window_bits={}", agreement.server_window_bits);
    }
    assert_eq!(agreement.response, expected);
    // Our own answer, offered to us, is agreed to.
    assert_eq!(
        negotiate([agreement.response.as_str()]).map(|again| again.server_window_bits),
        Some(agreement.server_window_bits)
    );
}

struct TlsPair {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn tls_pair() -> &'static TlsPair {
    static PAIR: OnceLock<TlsPair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let cert: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(cert.clone()).expect("a root");
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert], key))
            .expect("a server");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsPair { server: Arc::new(server), client: Arc::new(client) }
    })
}

/// First byte what the rest is: the start of a connection, records on an open one, or what an honest client says. Records
/// may be cut anywhere; the first error is the last thing heard.
pub fn tls(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let pair = tls_pair();
    let mut session = TlsSession::new(Arc::clone(&pair.server)).expect("a session");
    let (kind, size) = (how % 4, usize::from(how / 4) + 1);
    if kind == 0 {
        let mut plain = Vec::new();
        receive(&mut session, bytes, size, &mut plain);
        assert!(plain.is_empty(), "data without a handshake");
        return;
    }
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&pair.client), name).expect("a client");
    let mut plain = Vec::new();
    while client.is_handshaking() || session.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let answer = receive(&mut session, &wire, size.max(64), &mut plain).expect("an honest handshake");
        let mut answer = answer.as_slice();
        while client.read_tls(&mut answer).expect("memory") > 0 {
            client.process_new_packets().expect("an honest server");
        }
    }
    if kind == 1 {
        receive(&mut session, bytes, size, &mut plain);
        assert!(plain.is_empty(), "records nobody encrypted");
        return;
    }
    client.writer().write_all(bytes).expect("memory");
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).expect("memory");
    }
    receive(&mut session, &wire, size, &mut plain).expect("honest records");
    assert_eq!(plain, bytes);
    let mut sealed = Vec::new();
    session.encrypt(bytes, &mut sealed).expect("an open session");
    let (mut sealed, mut back) = (sealed.as_slice(), Vec::new());
    while client.read_tls(&mut sealed).expect("memory") > 0 {
        client.process_new_packets().expect("honest records");
        let _would_block_at_the_end = client.reader().read_to_end(&mut back);
    }
    assert_eq!(back, bytes);
}

/// Feeds `bytes` in pieces; what must be sent back, or `None` after an error.
fn receive(session: &mut TlsSession, bytes: &[u8], size: usize, plain: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    for piece in bytes.chunks(size) {
        match session.receive(&mut piece.to_vec(), plain, &mut answer) {
            Ok(TlsStatus::Open | TlsStatus::Handshaking) => {}
            Ok(TlsStatus::PeerClosed) => return Some(answer),
            Err(_) => {
                let before = plain.len();
                assert!(session.receive(&mut piece.to_vec(), plain, &mut answer).is_err());
                assert_eq!(plain.len(), before);
                return None;
            }
        }
    }
    Some(answer)
}

/// First byte the size of the reads; the rest frames between nodes, and what a node says of itself.
pub fn link(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let taken = link_frames(stream, usize::from(*piece));
    for one in &taken {
        assert_eq!(one.payload, one.again, "two spellings of one message");
    }
    assert_eq!(taken, link_frames(stream, stream.len()), "where the network cuts changes nothing");
    if let Some(again) = link_hello(stream) {
        assert!(stream.starts_with(&again));
    }
}

//! The event that a function of `AWS_PROXY` gets (specification 4.2).
//!
//! Written by hand, member after member, in the order the service was seen to write them: three shapes, no tree between.
//! What would be `null` is left out.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::context::{Event, Handshake, RequestContext};
use crate::message::Message;

/// The event of an exchange; `message` is the client's, and looked at for messages alone.
pub(super) fn write(ctx: &RequestContext<'_>, message: &Message) -> String {
    let mut out = Writer::with_capacity(1_024 + message.len());
    out.open(None);
    match ctx.event {
        Event::Connect(handshake) => {
            let headers = grouped(&handshake.headers, str::eq_ignore_ascii_case);
            out.values("headers", "multiValueHeaders", &headers);
            let query = grouped(&handshake.query, |one, other| one == other);
            if !query.is_empty() {
                out.values("queryStringParameters", "multiValueQueryStringParameters", &query);
            }
        }
        // These four and no more, whatever the handshake had.
        Event::Disconnect(..) => {
            let host = &*ctx.connection.profile.domain_name;
            let headers = [("Host", host), ("x-api-key", ""), ("X-Forwarded-For", ""), ("x-restapi", "")];
            out.values("headers", "multiValueHeaders", &headers.map(|(name, value)| (name, vec![value])));
        }
        Event::Message(_) => {}
    }
    if !ctx.stage_variables.is_empty() {
        out.map("stageVariables", ctx.stage_variables);
    }
    request_context(&mut out, ctx);
    if let Event::Message(_) = ctx.event {
        out.text("body", &message.as_text());
    }
    out.bare("isBase64Encoded", matches!(ctx.event, Event::Message(_)) && message.is_base64());
    out.close();
    out.out
}

/// The event that an authorizer gets (specification 8.2): unlike the other it has what made the request an upgrade, and every
/// map even where there is nothing to put into it.
pub(super) fn authorizer_request(ctx: &RequestContext<'_>, handshake: &Handshake, method_arn: &str) -> String {
    let mut out = Writer::with_capacity(2_048);
    out.open(None);
    out.text("type", "REQUEST");
    out.text("methodArn", method_arn);
    let mut headers = vec![("Connection", vec!["upgrade"]), ("content-length", vec!["0"])];
    headers.extend(grouped(&handshake.headers, str::eq_ignore_ascii_case));
    headers.push(("Upgrade", vec!["websocket"]));
    out.values("headers", "multiValueHeaders", &headers);
    let query = grouped(&handshake.query, |one, other| one == other);
    out.values("queryStringParameters", "multiValueQueryStringParameters", &query);
    out.map("stageVariables", ctx.stage_variables);
    request_context(&mut out, ctx);
    out.close();
    out.out
}

/// Specification 8.2.8.
fn authorizer(out: &mut Writer, ctx: &RequestContext<'_>) {
    let Some(authorized) = ctx.connection.profile.authorized.as_deref() else { return };
    let latency = match ctx.event {
        Event::Connect(handshake) => handshake.authorizer_latency,
        Event::Message(_) | Event::Disconnect(..) => None,
    };
    out.open(Some("authorizer"));
    out.text("principalId", &authorized.principal);
    for (name, value) in &authorized.context {
        if latency.is_none() || **name != *"integrationLatency" {
            out.text(name, value);
        }
    }
    if let Some(latency) = latency {
        out.bare("integrationLatency", latency.as_millis());
    }
    out.close();
}

/// Specification 4.2.4.
fn request_context(out: &mut Writer, ctx: &RequestContext<'_>) {
    let connection = ctx.connection;
    let profile = &connection.profile;
    out.open(Some("requestContext"));
    out.text("routeKey", ctx.route_key);
    match ctx.event {
        Event::Disconnect(code, _) => out.bare("disconnectStatusCode", code),
        Event::Connect(_) | Event::Message(_) => {}
    }
    authorizer(out, ctx);
    if let Event::Message(id) = ctx.event {
        out.text("messageId", &id.text());
    }
    out.text("eventType", ctx.event.kind());
    out.text("extendedRequestId", &ctx.request_id.text());
    out.text("requestTime", &ctx.time.to_request_time());
    out.text("messageDirection", "IN");
    if let Event::Disconnect(_, reason) = ctx.event {
        out.text("disconnectReason", reason);
    }
    out.text("stage", profile.stage.as_str());
    out.bare("connectedAt", connection.connected_at.0);
    // The clock may have been set back in between.
    out.bare("requestTimeEpoch", ctx.time.max(connection.connected_at).0);
    identity(out, ctx);
    out.text("requestId", &ctx.request_id.text());
    out.text("domainName", &profile.domain_name);
    out.text("connectionId", &connection.id.text());
    out.text("apiId", profile.api.as_str());
    out.close();
}

/// Specification 4.2.5.
fn identity(out: &mut Writer, ctx: &RequestContext<'_>) {
    let profile = &ctx.connection.profile;
    let caller = profile.caller.as_deref();
    out.open(Some("identity"));
    if let Some(caller) = caller {
        out.text("userArn", &caller.arn);
    }
    if let Some(agent) = &profile.user_agent {
        out.text("userAgent", agent);
    }
    if let Some(caller) = caller {
        out.text("accountId", &caller.account);
        out.text("caller", &caller.id);
    }
    out.text("sourceIp", &ctx.connection.source_ip.to_string());
    if let Some(caller) = caller {
        out.text("accessKey", &caller.access_key);
        out.text("user", &caller.id);
    }
    out.close();
}

/// Names in order of their first use and spelled as there, each with all its values.
fn grouped(pairs: &[(String, String)], same: impl Fn(&str, &str) -> bool) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match groups.iter_mut().find(|(known, _)| same(known, name)) {
            Some((_, values)) => values.push(value),
            None => groups.push((name, vec![value])),
        }
    }
    groups
}

/// Compact JSON, one member after the other.
struct Writer {
    out: String,
    /// Whether the next member is the first of its object.
    is_first: bool,
}

impl Writer {
    fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), is_first: true }
    }

    /// Begins an object, under a name unless it is the outermost.
    fn open(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.name(name);
        }
        self.out.push('{');
        self.is_first = true;
    }

    fn close(&mut self) {
        self.out.push('}');
        self.is_first = false;
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
        self.quote(name);
        self.out.push(':');
    }

    fn quote(&mut self, text: &str) {
        // Only what must be is escaped, as the service does; slashes and other scripts stay.
        self.out.push('"');
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
            self.out.push_str(text.get(plain..at).unwrap_or_default());
            plain = at + 1;
            let _infallible = match byte {
                b'"' => self.out.write_str("\\\""),
                b'\\' => self.out.write_str("\\\\"),
                b'\n' => self.out.write_str("\\n"),
                b'\r' => self.out.write_str("\\r"),
                b'\t' => self.out.write_str("\\t"),
                control => write!(self.out, "\\u{control:04x}"),
            };
        }
        self.out.push_str(text.get(plain..).unwrap_or_default());
        self.out.push('"');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.quote(value);
    }

    /// A number or a truth value.
    fn bare(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _infallible = write!(self.out, "{value}");
    }

    fn map(&mut self, name: &str, map: &BTreeMap<String, String>) {
        self.open(Some(name));
        for (name, value) in map {
            self.text(name, value);
        }
        self.close();
    }

    /// The same names twice: with their last value, then with all.
    fn values(&mut self, single: &str, multi: &str, groups: &[(&str, Vec<&str>)]) {
        self.open(Some(single));
        for (name, values) in groups {
            self.text(name, values.last().copied().unwrap_or_default());
        }
        self.close();
        self.open(Some(multi));
        for (name, values) in groups {
            self.name(name);
            self.out.push('[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    self.out.push(',');
                }
                self.quote(value);
            }
            self.out.push(']');
        }
        self.close();
    }
}

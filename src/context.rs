//! What an exchange knows about its connection and itself; what `$context` can see (specification 12.1).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::EpochMillis;
use crate::ids::{ApiId, ConnectionId, MessageId, RequestId, StageName};
use crate::lang::{Variable, Variables};

/// What many connections share, held once: the same page opened by a thousand people in the same browser is one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The API the handshake reached.
    pub api: ApiId,
    /// The stage the handshake reached.
    pub stage: StageName,
    /// The host the client used, port included unless it is the scheme's own.
    pub domain_name: Box<str>,
    /// The client's `User-Agent`, when it sent one.
    pub user_agent: Option<Box<str>>,
    /// Who signed the handshake, where it had to be signed.
    pub caller: Option<Box<Caller>>,
    /// Whom an authorizer recognised, where it had to.
    pub authorized: Option<Box<Authorized>>,
}

/// Who signed a handshake, as events show it for as long as the connection lives (specification 4.2.5, 8.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// `identity.accountId`.
    pub account: Box<str>,
    /// `identity.caller` and `identity.user`: the principal's id.
    pub id: Box<str>,
    /// `identity.userArn`.
    pub arn: Box<str>,
    /// `identity.accessKey`: the key's name, not the key.
    pub access_key: Box<str>,
}

/// Whom an authorizer recognised, as events show it for as long as the connection lives (specification 8.2.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authorized {
    /// `authorizer.principalId`.
    pub principal: Box<str>,
    /// `authorizer.{name}`: what the authorizer says of them, every value a text, in its order. At most 8 KB with the principal.
    pub context: Vec<(Box<str>, Box<str>)>,
}

/// What was settled when a connection was made; lives as long as it does, so every byte counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionContext {
    /// The connection.
    pub id: ConnectionId,
    /// When the handshake was accepted for processing; `connectedAt` in every event.
    pub connected_at: EpochMillis,
    /// The client's address.
    pub source_ip: IpAddr,
    /// What it shares with others.
    pub profile: Arc<Profile>,
}

/// The request that opened a connection, as `$connect` integrations see it (specification 1.6).
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// Header names as the client spelled them, values, in order; `Connection`, `Upgrade`, `Content-Length` taken out,
    /// `Host`, `X-Amzn-Trace-Id`, `X-Forwarded-*` added or overwritten.
    pub headers: Vec<(String, String)>,
    /// Query parameters, decoded, in order, repeats kept.
    pub query: Vec<(String, String)>,
    /// The query string as sent, without `?`; empty when there was none.
    pub raw_query: String,
    /// How long its authorizer took, when there was one: `authorizer.integrationLatency`.
    pub authorizer_latency: Option<Duration>,
}

/// What happened, with what only this kind of event has.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A handshake.
    Connect(&'a Handshake),
    /// A client message.
    Message(MessageId),
    /// The end of a connection: `disconnectStatusCode`, `disconnectReason`.
    Disconnect(u16, &'a str),
}

impl Event<'_> {
    /// `$context.eventType`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::Message(_) => "MESSAGE",
            Self::Disconnect(..) => "DISCONNECT",
        }
    }
}

/// One exchange; built once, passed by reference to everything that serves it.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// Whose exchange it is.
    pub connection: &'a ConnectionContext,
    /// Names the exchange; `requestId` and `extendedRequestId`.
    pub request_id: RequestId,
    /// What happened.
    pub event: Event<'a>,
    /// The selected route.
    pub route_key: &'a str,
    /// When it was received.
    pub time: EpochMillis,
    /// Variables of the stage.
    pub stage_variables: &'a BTreeMap<String, String>,
}

impl RequestContext<'_> {
    /// `$context.authorizer.{name}`.
    fn authorizer(&self, name: &str) -> Option<Variable<'_>> {
        let authorized = self.connection.profile.authorized.as_deref()?;
        let text = match (name, self.event) {
            ("principalId", _) => &authorized.principal,
            ("integrationLatency", Event::Connect(handshake)) => {
                let millis = handshake.authorizer_latency?.as_millis();
                return Some(Variable::Number(i64::try_from(millis).unwrap_or(i64::MAX)));
            }
            _ => authorized.context.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)?,
        };
        Some(Variable::Text(Cow::Borrowed(text)))
    }
}

impl Variables for RequestContext<'_> {
    fn context(&self, path: &str) -> Option<Variable<'_>> {
        let text = |text: &'static str| Some(Variable::Text(Cow::Borrowed(text)));
        let borrowed = |text| Some(Variable::Text(Cow::Borrowed(text)));
        let owned = |text| Some(Variable::Text(Cow::Owned(text)));
        let number = |millis: EpochMillis| Some(Variable::Number(i64::try_from(millis.0).unwrap_or(i64::MAX)));
        let profile = &self.connection.profile;
        let caller = profile.caller.as_deref();
        match path {
            "apiId" => borrowed(profile.api.as_str()),
            "connectedAt" => number(self.connection.connected_at),
            "connectionId" => owned(self.connection.id.to_string()),
            "domainName" => borrowed(&profile.domain_name),
            "eventType" => text(self.event.kind()),
            "requestId" | "extendedRequestId" => owned(self.request_id.to_string()),
            "identity.sourceIp" => owned(self.connection.source_ip.to_string()),
            "identity.accountId" => caller.and_then(|caller| borrowed(&caller.account)),
            "identity.caller" | "identity.user" => caller.and_then(|caller| borrowed(&caller.id)),
            "identity.userArn" => caller.and_then(|caller| borrowed(&caller.arn)),
            "identity.accessKey" => caller.and_then(|caller| borrowed(&caller.access_key)),
            "identity.userAgent" => profile.user_agent.as_deref().and_then(borrowed),
            "messageDirection" => text("IN"),
            "messageId" => match self.event {
                Event::Message(id) => owned(id.to_string()),
                Event::Connect(_) | Event::Disconnect(..) => None,
            },
            "requestTime" => owned(self.time.to_request_time()),
            "requestTimeEpoch" => number(self.time),
            "routeKey" => borrowed(self.route_key),
            "stage" => borrowed(profile.stage.as_str()),
            "disconnectStatusCode" => match self.event {
                Event::Disconnect(code, _) => Some(Variable::Number(i64::from(code))),
                Event::Connect(_) | Event::Message(_) => None,
            },
            "disconnectReason" => match self.event {
                Event::Disconnect(_, reason) => borrowed(reason),
                Event::Connect(_) | Event::Message(_) => None,
            },
            _ => self.authorizer(path.strip_prefix("authorizer.")?),
        }
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        self.stage_variables.get(name).map(String::as_str)
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let Event::Connect(handshake) = self.event else { return Vec::new() };
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        handshake.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    fn query(&self, name: &str) -> Vec<&str> {
        let Event::Connect(handshake) = self.event else { return Vec::new() };
        handshake.query.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

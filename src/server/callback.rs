//! The callback paths: `@connections`, `@groups`, `@all` (specification 6).

use std::net::IpAddr;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::respond::Answer;
use crate::auth::iam::{RequestFacts, Signer};
use crate::clock::EpochMillis;
use crate::fault::Fault;
use crate::gateway::{Described, Gateway, Listing, LiveStage, Pushed, Resolver, SignedCall};
use crate::ids::{ConnectionId, RequestId};
use crate::secret::Secret;
use crate::sigv4;

/// Who may call the callback paths, besides those whose signature and policies say so.
#[derive(Debug, Clone, Default)]
pub struct CallbackAccess {
    /// Whether anybody on this machine may, under a loopback name: what `dev` does.
    pub is_open_on_loopback: bool,
    /// Who knows this may, as `Authorization: Bearer …`.
    pub token: Option<Secret>,
}

/// One call.
#[derive(Debug)]
pub(super) struct CallbackRequest<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) origin: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    /// The SDK's name for the call through all its repetitions: `amz-sdk-invocation-id`.
    pub(super) call: Option<&'a str>,
    /// Whether only this machine has a part in it, as far as is known; looked at only where
    /// [`CallbackAccess::is_open_on_loopback`].
    pub(super) is_local: bool,
    /// What its signature is checked with; nothing when it has none.
    pub(super) signed: Option<Signed<'a>>,
    /// Names the exchange, in the answer and in the log.
    pub(super) id: RequestId,
}

/// What a signature and policies are checked with.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    /// All headers, in order.
    pub(super) headers: Vec<(&'a str, &'a str)>,
    /// The client's address.
    pub(super) source_ip: IpAddr,
    /// Whether the client is over TLS.
    pub(super) is_tls: bool,
}

impl CallbackRequest<'_> {
    /// The request as its signature sees it.
    fn wire(&self) -> sigv4::Request<'_> {
        let headers = self.signed.as_ref().map_or(&[][..], |signed| &signed.headers);
        sigv4::Request { method: self.method, path: self.path, query: self.query, headers }
    }
}

/// Whether a request has anything that may be a signature, well formed or not: [`CallbackRequest::signed`] is needed then.
pub(super) fn may_be_signed(authorization: Option<&str>, query: &str) -> bool {
    authorization.is_some_and(|text| bearer(text).is_none()) || query.contains("X-Amz-Algorithm")
}

/// The token of `Bearer …`.
fn bearer(authorization: &str) -> Option<&str> {
    authorization.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer ")).and(authorization.get(7..))
}

/// Whether a path may be a callback's: one of its segments starts with `@`.
pub(super) fn is_callback(path: &str) -> bool {
    path.contains("/@") || path.contains("/%40")
}

/// What a callback path names; segments as sent.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Connection(&'a str),
    Group(&'a str),
    Member(&'a str, &'a str),
    All,
}

impl Target<'_> {
    /// What policies call it: the id of a connection stands for itself as `{connectionId}`, a group by its name
    /// (specification 6.5.2).
    fn resource(&self, method: &str) -> String {
        match self {
            Self::Connection(_) => format!("{method}/@connections/{{connectionId}}"),
            Self::Group(group) | Self::Member(group, _) => {
                format!("{method}/@groups/{}", percent_decode_str(group).decode_utf8_lossy())
            }
            Self::All => format!("{method}/@all"),
        }
    }
}

fn target(rest: &str) -> Option<Target<'_>> {
    let rest = rest.strip_prefix('@').or_else(|| rest.strip_prefix("%40"))?;
    let mut segments = rest.split('/');
    let found = match (segments.next()?, segments.next(), segments.next()) {
        ("connections", Some(id), None) if !id.is_empty() => Target::Connection(id),
        ("groups", Some(group), None) if !group.is_empty() => Target::Group(group),
        ("groups", Some(group), Some(id)) if !group.is_empty() && !id.is_empty() => Target::Member(group, id),
        ("all", None, None) => Target::All,
        _ => return None,
    };
    segments.next().is_none().then_some(found)
}

/// Whether the caller may call at all, as far as that can be told without the body; a signer, when there is one, has yet
/// to be proven. A web page must not push: a request with an `Origin` is refused unless the API lists it.
fn authorize<'r>(
    gateway: &'r Gateway,
    access: &CallbackAccess,
    stage: &LiveStage,
    request: &'r CallbackRequest<'_>,
) -> Result<Option<Signer<'r>>, Fault> {
    if let Some(origin) = request.origin {
        let allowed = &stage.load().api.callback_origins;
        if !allowed.iter().any(|o| o.eq_ignore_ascii_case(origin)) {
            return Err(Fault::AccessDenied);
        }
    }
    if let (Some(token), Some(sent)) = (&access.token, request.authorization.and_then(bearer)) {
        return if token.matches(sent.as_bytes()) { Ok(None) } else { Err(Fault::AccessDenied) };
    }
    let is_free = access.is_open_on_loopback && request.is_local;
    if request.signed.is_some() && gateway.has_keys() {
        // Code that runs unchanged under `dev` signs with whatever keys it found.
        let is_strange = || !gateway.is_key_named(request.authorization.unwrap_or_default(), request.query);
        if !(is_free && is_strange()) {
            return gateway.identify(&request.wire()).map(Some);
        }
    }
    match access.is_open_on_loopback {
        true if is_free => Ok(None),
        true => Err(Fault::AccessDenied),
        false => Err(Fault::MissingAuthenticationToken),
    }
}

/// Everything before the body matters: address, caller. The stage and the rest of the path.
///
/// A body beyond the limit is refused before a signature over it could be checked: whoever names a key that exists may
/// learn the limit, which is no secret.
pub(super) fn admit<'r>(
    gateway: &'r Gateway,
    access: &CallbackAccess,
    request: &'r CallbackRequest<'_>,
) -> Result<Admitted<'r>, Fault> {
    let resolved = gateway.resolve(Resolver { host: request.host, path: request.path, method: request.method })?;
    let target = target(resolved.rest).ok_or(Fault::Forbidden)?;
    let signer = authorize(gateway, access, &resolved.stage, request)?;
    Ok(Admitted { stage: resolved.stage, target, signer })
}

/// A call that may be made.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    stage: std::sync::Arc<LiveStage>,
    target: Target<'a>,
    /// Who says that they signed it.
    signer: Option<Signer<'a>>,
}

impl Admitted<'_> {
    /// Largest body it takes.
    pub(super) fn max_body(&self) -> usize {
        self.stage.load().policy.limits.max_message_bytes
    }

    /// Whether the signer is who they say and may do this; a caller without a signature was let in before.
    fn permit(&self, gateway: &Gateway, request: &CallbackRequest<'_>, body: &[u8]) -> Result<(), Fault> {
        let (Some(signer), Some(with)) = (&self.signer, &request.signed) else { return Ok(()) };
        let header = |name: &str| with.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        let facts = RequestFacts {
            source_ip: with.source_ip,
            is_tls: with.is_tls,
            user_agent: header("user-agent"),
            referer: header("referer"),
            now: EpochMillis::default(),
        };
        let call = SignedCall { request: request.wire(), body, path: &self.target.resource(request.method), facts };
        gateway.permit(&self.stage, signer, &call)
    }

    /// Makes the call, once it is certain that the caller may.
    pub(super) async fn serve(&self, gateway: &Gateway, request: &CallbackRequest<'_>, body: Bytes) -> Answer {
        if let Err(fault) = self.permit(gateway, request, &body) {
            gateway.metrics().fault(&fault);
            return Answer::fault(&fault);
        }
        let id = request.id;
        let pushed = Pushed { body, is_binary: request.content_type.is_some_and(names_bytes) };
        let stage = &*self.stage;
        let outcome = match (&self.target, request.method) {
            (Target::Connection(to), "POST") => {
                gateway.push(stage, to, pushed, request.call, id).await.map(|()| Answer::ok(String::new()))
            }
            (Target::Connection(to), "GET") => gateway.describe(stage, to, id).await.map(|d| Answer::ok(described(&d))),
            (Target::Connection(to), "DELETE") => gateway.close(stage, to, id).await.map(|()| Answer::no_content()),
            (Target::Group(group), "POST") => gateway
                .send_to_group(stage, group, pushed, id)
                .await
                .map(|result| Answer::ok(json!(result).to_string())),
            (Target::Group(group), "GET") => match page(request.query) {
                Ok((after, limit)) => {
                    gateway.group_members(stage, group, after, limit).await.map(|members| Answer::ok(listed(&members)))
                }
                Err(fault) => Err(fault),
            },
            (Target::Member(group, to), "PUT") => {
                gateway.add_to_group(stage, group, to).await.map(|()| Answer::no_content())
            }
            (Target::Member(group, to), "DELETE") => {
                gateway.remove_from_group(stage, group, to).await.map(|()| Answer::no_content())
            }
            (Target::All, "POST") => {
                gateway.send_to_all(stage, pushed, id).await.map(|result| Answer::ok(json!(result).to_string()))
            }
            _ => Err(Fault::Forbidden),
        };
        outcome.unwrap_or_else(|fault| Answer::fault(&fault))
    }
}

/// Members listed in one answer, unless fewer are asked for.
const PAGE: usize = 1_000;

/// `after` and `limit` of a listing; parameters of other names are left alone.
fn page(query: &str) -> Result<(Option<ConnectionId>, usize), Fault> {
    let (mut after, mut limit) = (None, PAGE);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => {
                let id = ConnectionId::parse(&value).map_err(|_| Fault::InvalidConnectionId(value.into_owned()))?;
                after = Some(id);
            }
            "limit" => limit = value.parse::<usize>().map_err(|_| Fault::BadRequest)?.clamp(1, PAGE),
            _ => {}
        }
    }
    Ok((after, limit))
}

/// `{"connectionIds": [...]}`; `next` is the cursor when there are more, `unreachable` names nodes that did not answer.
fn listed(members: &Listing<ConnectionId>) -> String {
    let ids: Vec<_> = members.items.iter().map(ToString::to_string).collect();
    let mut body = json!({ "connectionIds": ids });
    if let (true, Some(last), Some(body)) = (members.more, members.items.last(), body.as_object_mut()) {
        body.insert("next".to_owned(), last.to_string().into());
    }
    if let (false, Some(body)) = (members.unreachable.is_empty(), body.as_object_mut()) {
        body.insert("unreachable".to_owned(), members.unreachable.len().into());
    }
    body.to_string()
}

/// Whether a content type names bytes rather than text.
fn names_bytes(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/octet-stream"
        || ["image/", "audio/", "video/"].iter().any(|prefix| kind.starts_with(prefix))
        || matches!(
            kind.as_str(),
            "application/x-protobuf" | "application/protobuf" | "application/cbor" | "application/msgpack"
        )
}

/// The pretty-printed form of `GET @connections`, member order and spaces as recorded (specification 6.2).
pub(super) fn described(d: &Described) -> String {
    let agent = d.user_agent.as_deref().map_or(serde_json::Value::Null, Into::into);
    format!(
        "{{\n  \"identity\" : {{\n    \"sourceIp\" : \"{}\",\n    \"userAgent\" : {agent}\n  }},\n  \"connectedAt\" : \"{}\",\n  \"lastActiveAt\" : \"{}\"\n}}",
        d.source_ip,
        d.connected_at.to_iso(),
        d.last_active_at.to_iso()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_connections_groups_and_all() {
        assert_eq!(target("@connections/abc%3D"), Some(Target::Connection("abc%3D")));
        assert_eq!(target("%40connections/abc="), Some(Target::Connection("abc=")));
        assert_eq!(target("@groups/room"), Some(Target::Group("room")));
        assert_eq!(target("@groups/room/abc="), Some(Target::Member("room", "abc=")));
        assert_eq!(target("@all"), Some(Target::All));
        for path in ["@connections", "@connections/", "@connections/a/b", "@all/x", "@other/x", "connections/a", ""] {
            assert_eq!(target(path), None, "{path}");
        }
    }

    // checklist: 185
    #[test]
    fn a_description_is_printed_as_recorded() {
        let d = Described {
            connected_at: EpochMillis(1_605_442_994_726),
            last_active_at: EpochMillis(1_605_442_994_972),
            source_ip: IpAddr::from([192, 0, 2, 1]),
            user_agent: Some("Mozilla/5.0".into()),
        };
        let expected = "{\n  \"identity\" : {\n    \"sourceIp\" : \"192.0.2.1\",\n    \"userAgent\" : \"Mozilla/5.0\"\n  },\n  \"connectedAt\" : \"2020-11-15T12:23:14.726Z\",\n  \"lastActiveAt\" : \"2020-11-15T12:23:14.972Z\"\n}";
        assert_eq!(described(&d), expected);
    }

    #[test]
    fn policies_name_a_group_and_no_connection() {
        assert_eq!(Target::Connection("abc=").resource("POST"), "POST/@connections/{connectionId}");
        assert_eq!(Target::Group("room%201").resource("POST"), "POST/@groups/room 1");
        assert_eq!(Target::Member("room", "abc=").resource("PUT"), "PUT/@groups/room");
        assert_eq!(Target::All.resource("POST"), "POST/@all");
    }

    #[test]
    fn a_token_never_shows() {
        let access = CallbackAccess { is_open_on_loopback: false, token: Some("secret".into()) };
        assert!(!format!("{access:?}").contains("secret"));
    }
}

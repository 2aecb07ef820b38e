//! The callback paths: `@connections`, `@groups`, `@all` (specification 6).

use bytes::Bytes;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::respond::Answer;
use crate::fault::Fault;
use crate::gateway::{Described, Gateway, Listing, LiveStage, Pushed, Resolver};
use crate::ids::{ConnectionId, RequestId};

/// Who may call the callback paths.
#[derive(Clone)]
pub enum CallbackAccess {
    /// Anybody on this machine, under a loopback name: what `dev` does.
    Loopback,
    /// Who knows the token, as `Authorization: Bearer …`.
    Bearer(Box<str>),
    /// Nobody.
    Nobody,
}

impl CallbackAccess {
    /// Whether it matters where a caller is.
    pub(super) const fn asks_where_from(&self) -> bool {
        matches!(self, Self::Loopback)
    }
}

impl std::fmt::Debug for CallbackAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loopback => "Loopback",
            Self::Bearer(_) => "Bearer(***)",
            Self::Nobody => "Nobody",
        })
    }
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
    /// [`CallbackAccess::asks_where_from`].
    pub(super) is_local: bool,
    /// Names the exchange, in the answer and in the log.
    pub(super) id: RequestId,
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

/// Whether the caller may call at all. A web page must not push: a request with an `Origin` is refused unless the API
/// lists it.
fn authorize(access: &CallbackAccess, stage: &LiveStage, request: &CallbackRequest<'_>) -> Result<(), Fault> {
    if let Some(origin) = request.origin {
        let allowed = &stage.load().api.callback_origins;
        if !allowed.iter().any(|o| o.eq_ignore_ascii_case(origin)) {
            return Err(Fault::AccessDenied);
        }
    }
    match access {
        CallbackAccess::Loopback if request.is_local => Ok(()),
        CallbackAccess::Loopback | CallbackAccess::Nobody => Err(Fault::AccessDenied),
        CallbackAccess::Bearer(token) => {
            let sent = request.authorization.ok_or(Fault::MissingAuthenticationToken)?;
            let sent = sent.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer ")).and(sent.get(7..));
            let sent = sent.ok_or(Fault::MissingAuthenticationToken)?;
            if bool::from(sent.as_bytes().ct_eq(token.as_bytes())) { Ok(()) } else { Err(Fault::AccessDenied) }
        }
    }
}

/// Everything before the body matters: address, caller. The stage and the rest of the path.
pub(super) fn admit<'a>(
    gateway: &Gateway,
    access: &CallbackAccess,
    request: &CallbackRequest<'a>,
) -> Result<Admitted<'a>, Fault> {
    let resolved = gateway.resolve(Resolver { host: request.host, path: request.path, method: request.method })?;
    let target = target(resolved.rest).ok_or(Fault::Forbidden)?;
    authorize(access, &resolved.stage, request)?;
    Ok(Admitted { stage: resolved.stage, target })
}

/// A call that may be made.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    stage: std::sync::Arc<LiveStage>,
    target: Target<'a>,
}

impl Admitted<'_> {
    /// Largest body it takes.
    pub(super) fn max_body(&self) -> usize {
        self.stage.load().policy.limits.max_message_bytes
    }

    /// Makes the call.
    pub(super) async fn serve(&self, gateway: &Gateway, request: &CallbackRequest<'_>, body: Bytes) -> Answer {
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
    use std::net::IpAddr;

    use super::*;
    use crate::clock::EpochMillis;

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
    fn a_token_never_shows() {
        assert_eq!(format!("{:?}", CallbackAccess::Bearer("secret".into())), "Bearer(***)");
    }
}

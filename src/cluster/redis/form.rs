//! Values as they stand in Redis: JSON of our own shapes, apart from the types of the domain.
//!
//! ```json
//! {"address":"10.0.0.7:9443","name":"gw-1","version":"0.1.0","startedAt":1760000000000}
//! {"api":"chat","stage":"prod","domainName":"chat.example.com","userAgent":"Mozilla/5.0 …","connectedAt":1760000000000,"sourceIp":"192.0.2.7"}
//! ```

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::EpochMillis;
use crate::cluster::registry::NodeInfo;
use crate::context::{Authorized, Caller, ConnectionContext, Profile};
use crate::ids::{ApiId, ConnectionId, StageName};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeForm<'a> {
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    started_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordForm<'a> {
    #[serde(borrow)]
    api: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    domain_name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    caller: Option<CallerForm<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    authorized: Option<AuthorizedForm<'a>>,
    connected_at: u64,
    source_ip: IpAddr,
}

/// Who signed the handshake.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallerForm<'a> {
    #[serde(borrow)]
    account: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    arn: Cow<'a, str>,
    #[serde(borrow)]
    access_key: Cow<'a, str>,
}

/// Whom an authorizer recognised.
#[derive(Serialize, Deserialize)]
struct AuthorizedForm<'a> {
    #[serde(borrow)]
    principal: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    context: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// A node as JSON.
pub(super) fn write_node(info: &NodeInfo) -> String {
    let form = NodeForm {
        address: Cow::Borrowed(&info.address),
        name: Cow::Borrowed(&info.name),
        version: Cow::Borrowed(&info.version),
        started_at: info.started_at.0,
    };
    // Strings and a number: nothing that could fail.
    serde_json::to_string(&form).unwrap_or_default()
}

/// A node from JSON; unknown names are of a later version and passed over.
pub(super) fn read_node(json: &[u8]) -> Option<NodeInfo> {
    let form: NodeForm<'_> = serde_json::from_slice(json).ok()?;
    Some(NodeInfo {
        address: Arc::from(form.address),
        name: Arc::from(form.name),
        version: Arc::from(form.version),
        started_at: EpochMillis(form.started_at),
    })
}

/// What is kept of a connection, as JSON; its id is the field's name.
pub(super) fn write_record(context: &ConnectionContext) -> String {
    let profile = &context.profile;
    let form = RecordForm {
        api: Cow::Borrowed(profile.api.as_str()),
        stage: Cow::Borrowed(profile.stage.as_str()),
        domain_name: Cow::Borrowed(&profile.domain_name),
        user_agent: profile.user_agent.as_deref().map(Cow::Borrowed),
        caller: profile.caller.as_deref().map(|caller| CallerForm {
            account: Cow::Borrowed(&caller.account),
            id: Cow::Borrowed(&caller.id),
            arn: Cow::Borrowed(&caller.arn),
            access_key: Cow::Borrowed(&caller.access_key),
        }),
        authorized: profile.authorized.as_deref().map(|authorized| AuthorizedForm {
            principal: Cow::Borrowed(&authorized.principal),
            context: authorized.context.iter().map(|(n, v)| (Cow::Borrowed(&**n), Cow::Borrowed(&**v))).collect(),
        }),
        connected_at: context.connected_at.0,
        source_ip: context.source_ip,
    };
    serde_json::to_string(&form).unwrap_or_default()
}

/// A connection from JSON.
pub(super) fn read_record(id: ConnectionId, json: &[u8]) -> Option<ConnectionContext> {
    let form: RecordForm<'_> = serde_json::from_slice(json).ok()?;
    let profile = Profile {
        api: ApiId::parse(&form.api).ok()?,
        stage: StageName::parse(&form.stage).ok()?,
        domain_name: form.domain_name.into(),
        user_agent: form.user_agent.map(Into::into),
        caller: form.caller.map(|caller| {
            Box::new(Caller {
                account: caller.account.into(),
                id: caller.id.into(),
                arn: caller.arn.into(),
                access_key: caller.access_key.into(),
            })
        }),
        authorized: form.authorized.map(|authorized| {
            let context = authorized.context.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            Box::new(Authorized { principal: authorized.principal.into(), context })
        }),
    };
    let connected_at = EpochMillis(form.connected_at);
    Some(ConnectionContext { id, connected_at, source_ip: form.source_ip, profile: Arc::new(profile) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_that_is_documented() {
        let id = ConnectionId::parse("L0SPDGiovHcFWMg=").unwrap();
        let json = r#"{"api":"chat","stage":"prod","domainName":"chat.example.com","userAgent":"say \"hi\"","connectedAt":17,"sourceIp":"192.0.2.7"}"#;
        let context = read_record(id, json.as_bytes()).unwrap();
        assert_eq!(context.profile.user_agent.as_deref(), Some("say \"hi\""));
        assert_eq!(write_record(&context), json);
        let json = r#"{"api":"chat","stage":"prod","domainName":"h","caller":{"account":"123456789012","id":"AIDAX","arn":"arn:aws:iam::123456789012:user/ann","accessKey":"AKIAX"},"connectedAt":17,"sourceIp":"192.0.2.7"}"#;
        let context = read_record(id, json.as_bytes()).unwrap();
        assert_eq!(context.profile.caller.as_ref().unwrap().access_key.as_ref(), "AKIAX");
        assert_eq!(write_record(&context), json);
        let json = r#"{"api":"chat","stage":"prod","domainName":"h","authorized":{"principal":"user-7","context":[["tenant","t\"1"]]},"connectedAt":17,"sourceIp":"192.0.2.7"}"#;
        let context = read_record(id, json.as_bytes()).unwrap();
        assert_eq!(context.profile.authorized.as_ref().unwrap().context[0].1.as_ref(), "t\"1");
        assert_eq!(write_record(&context), json);
        let json = r#"{"address":"10.0.0.7:9443","name":"gw-1","version":"0.1.0","startedAt":5}"#;
        assert_eq!(write_node(&read_node(json.as_bytes()).unwrap()), json);
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let id = ConnectionId::parse("L0SPDGiovHcFWMg=").unwrap();
        for json in
            ["", "{}", "[]", r#"{"api":"Not An Api","stage":"a","domainName":"","connectedAt":1,"sourceIp":"::1"}"#]
        {
            assert_eq!(read_record(id, json.as_bytes()), None, "{json}");
            assert_eq!(read_node(json.as_bytes()), None, "{json}");
        }
    }
}

//! What conditions of policies may ask for: the request, and who signed it.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Principal;
use crate::clock::EpochMillis;
use crate::lang::policy::Facts;

/// What is known of a request, whoever made it.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// `aws:SourceIp`: the client's address.
    pub source_ip: IpAddr,
    /// `aws:SecureTransport`: whether the client is over TLS.
    pub is_tls: bool,
    /// `aws:UserAgent`.
    pub user_agent: Option<&'a str>,
    /// `aws:Referer`.
    pub referer: Option<&'a str>,
    /// `aws:CurrentTime` and `aws:EpochTime`.
    pub now: EpochMillis,
}

impl Facts for RequestFacts<'_> {
    fn values(&self, key: &str) -> Vec<Cow<'_, str>> {
        let known = Known { request: self, principal: None };
        known.values(key).into_iter().map(|value| Cow::Owned(value.into_owned())).collect()
    }
}

/// A request and its signer.
pub(super) struct Known<'a> {
    pub(super) request: &'a RequestFacts<'a>,
    pub(super) principal: Option<&'a Principal>,
}

impl Facts for Known<'_> {
    fn values(&self, key: &str) -> Vec<Cow<'_, str>> {
        let (request, principal) = (self.request, self.principal);
        let value: Option<Cow<'_, str>> = match key {
            "aws:sourceip" => Some(request.source_ip.to_string().into()),
            "aws:securetransport" => Some(if request.is_tls { "true" } else { "false" }.into()),
            "aws:useragent" => request.user_agent.map(Into::into),
            "aws:referer" => request.referer.map(Into::into),
            "aws:currenttime" => Some(request.now.to_iso().into()),
            "aws:epochtime" => Some((request.now.0 / 1_000).to_string().into()),
            "aws:principalarn" => principal.map(|p| p.role_arn.as_deref().unwrap_or(&p.arn).into()),
            "aws:principalaccount" => principal.map(|p| Cow::Borrowed(&*p.account)),
            "aws:principaltype" => Some(match principal {
                None => "Anonymous".into(),
                Some(p) if p.role_arn.is_some() => "AssumedRole".into(),
                Some(_) => "User".into(),
            }),
            "aws:userid" => principal.map(|p| Cow::Borrowed(&*p.id)),
            "aws:username" => principal.and_then(|p| p.username.as_deref()).map(Into::into),
            _ => key.strip_prefix("aws:principaltag/").and_then(|name| {
                let tags = &principal?.tags;
                tags.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str().into())
            }),
        };
        value.into_iter().collect()
    }
}

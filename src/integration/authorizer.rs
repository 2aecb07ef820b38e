//! A function that decides who may connect: what it is asked, and what its answer means (specification 8.2).

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::http::{TRACE_ID, trace_id};
use super::lambda::{failed, failure};
use super::{Integrations, InvokeError, event};
use crate::context::{Authorized, Handshake, RequestContext};
use crate::definition::{Authorizer, IdentitySource};
use crate::lang::policy::{Facts, Kind, Policy, Question, Verdict};
use crate::lang::{Variable, Variables as _};
use crate::upstream::Invocation;

/// Largest answer (specification 8.2.7).
const MAX_ANSWER: usize = 8 * 1024;
/// What a function throws to have the client answered 401.
const UNAUTHORIZED: &str = "Unauthorized";

/// What is to be allowed.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The name of the API, `arn:aws:execute-api:{region}:{account}:{apiId}`.
    pub own: &'a str,
    /// What conditions of the policy may ask for.
    pub facts: &'a (dyn Facts + Sync),
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("own", &self.own).finish_non_exhaustive()
    }
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// An identity source is missing or empty; the function was not called.
    #[error("identity source {0} is missing or empty")]
    Unidentified(usize),
    /// The function threw exactly `Unauthorized`.
    #[error("the authorizer says `Unauthorized`")]
    Unauthorized,
    /// The function failed otherwise, took too long, or could not be called.
    #[error("the authorizer could not decide")]
    Failed(#[source] InvokeError),
    /// What the function gave is no answer of an authorizer.
    #[error("unusable answer of the authorizer: {0}")]
    Unusable(String),
    /// Its policy denies.
    #[error("the authorizer's policy denies")]
    Denied,
    /// Its policy does not allow.
    #[error("the authorizer's policy does not allow")]
    NotAllowed,
}

impl Integrations {
    /// Asks an authorizer about a handshake: whom it recognises, and how long it took.
    ///
    /// # Errors
    /// Every [`AuthorizeError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the call; the function goes on if it has begun.
    pub async fn authorize(
        &self,
        authorizer: &Authorizer,
        ctx: &RequestContext<'_>,
        handshake: &Handshake,
        asked: Asked<'_>,
    ) -> Result<(Authorized, Duration), AuthorizeError> {
        let deadline = Instant::now() + Authorizer::TIMEOUT;
        if let Some(missing) = authorizer.sources.iter().position(|source| !is_given(source, ctx)) {
            return Err(AuthorizeError::Unidentified(missing + 1));
        }
        let resource = format!("{}/{}/$connect", asked.own, ctx.connection.profile.stage);
        let function = authorizer.function.resolve(|name| ctx.stage_variable(name));
        let function = function.map_err(|error| AuthorizeError::Failed(error.into()))?;
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(&TRACE_ID, trace_id(ctx));
        let call = Invocation {
            function: &function.name,
            qualifier: function.qualifier.as_deref(),
            region: function.region.as_deref(),
            headers,
            payload: event::authorizer_request(ctx, handshake, &resource).into(),
        };
        let invoked = self.functions.invoke(call, deadline).await;
        let invoked = invoked.map_err(|error| AuthorizeError::Failed(error.into()))?;
        if invoked.is_function_error {
            let is_no = failure(&invoked.payload).error_message.is_some_and(|message| message == UNAUTHORIZED);
            return Err(if is_no {
                AuthorizeError::Unauthorized
            } else {
                AuthorizeError::Failed(failed(&invoked.payload))
            });
        }
        let (recognised, policy) = read(&invoked.payload).map_err(AuthorizeError::Unusable)?;
        let question = Question {
            action: "execute-api:Invoke",
            resource: &resource,
            own: asked.own,
            principals: &[],
            facts: asked.facts,
        };
        match policy.evaluate(&question) {
            Verdict::Allow => Ok((recognised, invoked.latency)),
            Verdict::Deny => Err(AuthorizeError::Denied),
            Verdict::Silent => Err(AuthorizeError::NotAllowed),
        }
    }
}

/// Whether a handshake has what an identity source names, and not empty.
fn is_given(source: &IdentitySource, ctx: &RequestContext<'_>) -> bool {
    match source {
        IdentitySource::Header(name) => ctx.headers(name).last().is_some_and(|value| !value.is_empty()),
        IdentitySource::Query(name) => ctx.query(name).last().is_some_and(|value| !value.is_empty()),
        IdentitySource::StageVariable(name) => ctx.stage_variable(name).is_some_and(|value| !value.is_empty()),
        // These two were seen to count as missing (specification 8.2.5).
        IdentitySource::Context(path) if matches!(path.as_str(), "eventType" | "messageDirection") => false,
        IdentitySource::Context(path) => match ctx.context(path) {
            Some(Variable::Text(text)) => !text.is_empty(),
            Some(Variable::Number(_)) => true,
            None => false,
        },
    }
}

/// Reads an answer; what is wrong with it is said without quoting it.
fn read(payload: &[u8]) -> Result<(Authorized, Policy), String> {
    if payload.len() > MAX_ANSWER {
        return Err(format!("{} bytes, at most {MAX_ANSWER} are taken", payload.len()));
    }
    let answer: Map<String, Value> = serde_json::from_slice(payload).map_err(|_| "it is no JSON object".to_owned())?;
    let Some(Value::String(principal)) = answer.get("principalId") else {
        return Err("`principalId` is no text".to_owned());
    };
    let document = answer.get("policyDocument").ok_or("`policyDocument` is missing")?;
    let policy = Policy::parse(document, Kind::Identity).map_err(|error| error.to_string())?;
    let context = match answer.get("context") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(members)) => context(members)?,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err("`context` is no object".to_owned());
        }
    };
    Ok((Authorized { principal: principal.as_str().into(), context }, policy))
}

/// Names and texts.
type Members = Vec<(Box<str>, Box<str>)>;

/// The members of `context`, every value as a text; `null` is left out, as is a `principalId` of its own.
fn context(members: &Map<String, Value>) -> Result<Members, String> {
    let mut context = Vec::with_capacity(members.len());
    for (name, value) in members {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return Err("`context` holds an object or a list".to_owned()),
        };
        if name != "principalId" {
            context.push((name.as_str().into(), text.into()));
        }
    }
    Ok(context)
}

//! The operator's side of the admin listener: one call of `causeway connections` or `causeway nodes`, and what its
//! failures mean.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::Value;
use tokio::time::Instant;

use super::{Exit, complain};
use crate::config::AdminArgs;
use crate::tasks::Tasks;
use crate::upstream;

/// How long a gateway may take to answer its operator.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a command did not do what it was asked: how the process ends, and what it says.
pub(super) type Failed = (Exit, String);

/// Runs a command to its end and says what went wrong.
pub(super) fn run(command: impl Future<Output = Result<(), Failed>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err((Exit::Unreachable, format!("the system refuses a runtime: {error}"))),
    };
    match outcome {
        Ok(()) => Exit::Clean,
        Err((exit, message)) => {
            complain(&message);
            exit
        }
    }
}

/// A gateway to ask.
pub(super) struct Desk {
    http: upstream::Http,
    base: String,
    authorization: Option<String>,
}

impl Desk {
    pub(super) fn new(args: &AdminArgs) -> Result<Self, Failed> {
        let http = upstream::Http::new(&upstream::Config::default(), Tasks::new())
            .map_err(|error| (Exit::Bad, error.to_string()))?;
        let authorization = args.admin_token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
        Ok(Self { http, base: args.url(), authorization })
    }

    /// Makes one call; the body of its answer. A refusal is told in the gateway's words.
    pub(super) async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failed> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(|error| (Exit::Bad, format!("{}: {error}", self.base)))?;
        let answer = self.http.call(request, Instant::now() + PATIENCE).await.map_err(|error| {
            (Exit::Unreachable, format!("no gateway answers at {}: {}", self.base, super::serve::chain(&error)))
        })?;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let message = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|value| value.get("message").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| match status.as_u16() {
                410 => "the connection is gone".to_owned(),
                _ => format!("{} answers {status}", self.base),
            });
        Err((Exit::Bad, message))
    }

    /// The same, where the answer is JSON.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Value, Failed> {
        let body = self.call(method, path, Bytes::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| (Exit::Unreachable, format!("{} is no gateway: {error}", self.base)))
    }
}

/// A text of a JSON object; `-` where there is none.
pub(super) fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or("-")
}

/// The objects of a list in a JSON object.
pub(super) fn rows<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

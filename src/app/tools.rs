//! `causeway check` and `causeway connections`.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use super::{Exit, complain, print};
use crate::config::{self, CheckArgs, ConnectionsArgs, ConnectionsCommand, Settings};
use crate::definition;
use crate::tasks::Tasks;
use crate::upstream;

/// How long a gateway may take to answer its operator.
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks the configuration and all definitions, and prints every problem.
pub fn check(args: CheckArgs) -> Exit {
    if args.schema {
        print(&format!("{:#}", definition::json_schema()));
        return Exit::Clean;
    }
    let settings = match Settings::resolve(*args.options, args.config.as_deref(), &config::environment) {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&problems.to_string());
            return Exit::Bad;
        }
    };
    match definition::load(&settings.routes, &config::environment) {
        Ok(snapshot) => {
            if args.print {
                print(definition::print_routes(&snapshot).trim_end());
            } else {
                let routes: usize = snapshot.apis.iter().map(|api| api.routes.iter().count()).sum();
                let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let (apis, routes) = (count(snapshot.apis.len(), "API"), count(routes, "message route"));
                print(&format!("ok: {apis}, {routes}"));
            }
            Exit::Clean
        }
        Err(problems) => {
            complain(&problems.to_string());
            Exit::Bad
        }
    }
}

/// Looks at and acts on the connections of a running gateway.
pub fn connections(args: &ConnectionsArgs) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => match runtime.block_on(act(args)) {
            Ok(()) => Exit::Clean,
            Err((exit, message)) => {
                complain(&message);
                exit
            }
        },
        Err(error) => {
            complain(&format!("the system refuses a runtime: {error}"));
            Exit::Unreachable
        }
    }
}

type Failed = (Exit, String);

async fn act(args: &ConnectionsArgs) -> Result<(), Failed> {
    let desk = Desk::new(args)?;
    let path = |id: &str| format!("/connections/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    match &args.command {
        ConnectionsCommand::List { api, stage } => desk.list(api.as_deref(), stage.as_deref()).await,
        ConnectionsCommand::Get { id } => {
            let told = desk.call(Method::GET, &path(id), Bytes::new()).await?;
            print(&String::from_utf8_lossy(&told));
            Ok(())
        }
        ConnectionsCommand::Send { id, message } => {
            let body = if let Some(message) = message {
                Bytes::from(message.clone())
            } else {
                let mut text = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut text)
                    .map_err(|error| (Exit::Bad, format!("standard input cannot be read: {error}")))?;
                Bytes::from(text)
            };
            desk.call(Method::POST, &path(id), body).await.map(drop)
        }
        ConnectionsCommand::Close { id } => desk.call(Method::DELETE, &path(id), Bytes::new()).await.map(drop),
    }
}

/// The operator's side of the admin listener.
struct Desk {
    http: upstream::Http,
    base: String,
    authorization: Option<String>,
}

impl Desk {
    fn new(args: &ConnectionsArgs) -> Result<Self, Failed> {
        let http = upstream::Http::new(&upstream::Config::default(), Tasks::new())
            .map_err(|error| (Exit::Bad, error.to_string()))?;
        let authorization = args.admin_token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
        Ok(Self { http, base: args.admin_url(), authorization })
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failed> {
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
            .unwrap_or_else(|| {
                if status.as_u16() == 410 { "the connection is gone".to_owned() } else { status.to_string() }
            });
        Err((Exit::Bad, message))
    }

    async fn list(&self, api: Option<&str>, stage: Option<&str>) -> Result<(), Failed> {
        let mut after = None::<String>;
        let mut is_first = true;
        loop {
            let path = after.map_or_else(
                || "/connections".to_owned(),
                |id| format!("/connections?after={}", utf8_percent_encode(&id, NON_ALPHANUMERIC)),
            );
            let page = self.call(Method::GET, &path, Bytes::new()).await?;
            let page: Value = serde_json::from_slice(&page)
                .map_err(|error| (Exit::Unreachable, format!("{} is no gateway: {error}", self.base)))?;
            if is_first {
                print(
                    "CONNECTION        API/STAGE             SOURCE                CONNECTED                 LAST ACTIVE",
                );
            }
            is_first = false;
            let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
            for row in page.get("connections").and_then(Value::as_array).into_iter().flatten() {
                let (row_api, row_stage) = (text(row, "apiId"), text(row, "stage"));
                if api.is_some_and(|api| api != row_api) || stage.is_some_and(|stage| stage != row_stage) {
                    continue;
                }
                print(&format!(
                    "{:<17} {:<21} {:<21} {:<25} {}",
                    text(row, "connectionId"),
                    format!("{row_api}/{row_stage}"),
                    text(row, "sourceIp"),
                    text(row, "connectedAt"),
                    text(row, "lastActiveAt"),
                ));
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(()),
            }
        }
    }
}

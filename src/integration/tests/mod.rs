//! Integrations against a raw back-end on loopback: the world of one exchange; the tests stand beside, by theme.

mod lambda;
mod request;
mod response;
mod templates;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::{Integrations, InvokeError, Outcome, mock};
use crate::clock::{Clock, EpochMillis};
use crate::context::{ConnectionContext, Event, Handshake, Profile, RequestContext};
use crate::definition::integration::{
    ContentHandling, Destination, IntegrationResponse, ParameterMapping, Passthrough, RequestMapping, ResponseKey,
    ResponseSource, Source,
};
use crate::definition::{Http, Mock};
use crate::ids::{ApiId, ConnectionId, MessageId, RequestId, StageName};
use crate::lang::{JsonPath, Selection, Template};
use crate::message::Message;
use crate::tasks::Tasks;
use crate::upstream::backend::{Backend, Reply, answer, body, header, headers, ok};
use crate::upstream::{self, UpstreamError};

const CONNECTION: &str = "L0SM9cOFvHcCIhw=";
const MESSAGE: &str = "L0SPDfT5PHcCIhw=";

/// Everything one exchange needs.
struct World {
    connection: ConnectionContext,
    handshake: Handshake,
    stage_variables: BTreeMap<String, String>,
    integrations: Integrations,
    tasks: Tasks,
}

impl World {
    fn new() -> Self {
        Self::with(&upstream::Config::default())
    }

    fn with(config: &upstream::Config) -> Self {
        let tasks = Tasks::new();
        let profile = Profile {
            api: ApiId::parse("a1b2c3d4e5").unwrap(),
            stage: StageName::parse("prod").unwrap(),
            domain_name: "ws.example.com".into(),
            user_agent: Some("Mozilla/5.0".into()),
            caller: None,
            authorized: None,
        };
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Self {
            connection: ConnectionContext {
                id: ConnectionId::parse(CONNECTION).unwrap(),
                connected_at: EpochMillis(1_650_301_649_973),
                source_ip: [192, 0, 2, 1].into(),
                profile: Arc::new(profile),
            },
            handshake: Handshake {
                headers: pairs(&[
                    ("Host", "ws.example.com"),
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", "BvlrrFKoKAPDYOlwBcGKWw=="),
                    ("User-Agent", "Mozilla/5.0"),
                    ("x-teaM", "a"),
                    ("x-teaM", "b"),
                    ("X-Amzn-Trace-Id", "Root=1-625d9ad1-37a5d33a61dd9be33ae3a247"),
                    ("Transfer-Encoding", "chunked"),
                    ("Keep-Alive", "timeout=5"),
                ]),
                query: pairs(&[("authToken", "t k"), ("tag", "a"), ("tag", "b")]),
                raw_query: "authToken=t%20k&tag=a&tag=b".to_owned(),
                authorizer_latency: None,
            },
            stage_variables: BTreeMap::from([("env".to_owned(), "production".to_owned())]),
            integrations: integrations(config, &upstream::LambdaConfig::default(), &tasks),
            tasks,
        }
    }

    fn exchange<'a>(&'a self, route_key: &'a str, event: Event<'a>) -> RequestContext<'a> {
        RequestContext {
            connection: &self.connection,
            request_id: RequestId::parse("L0SPDGiovHcFWMg=").unwrap(),
            event,
            route_key,
            time: EpochMillis(1_650_301_661_112),
            stage_variables: &self.stage_variables,
        }
    }

    fn connect(&self) -> RequestContext<'_> {
        self.exchange("$connect", Event::Connect(&self.handshake))
    }

    fn message(&self) -> RequestContext<'_> {
        self.exchange("send", Event::Message(MessageId::parse(MESSAGE).unwrap()))
    }

    fn disconnect(&self) -> RequestContext<'_> {
        self.exchange("$disconnect", Event::Disconnect(1001, "Going away"))
    }

    async fn backend(&self, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Backend {
        Backend::start(&self.tasks, reply).await
    }

    async fn send(&self, http: &Http, ctx: &RequestContext<'_>, payload: &str) -> Result<Outcome, InvokeError> {
        self.integrations.http(http, ctx, &Message::from_string(payload)).await
    }
}

fn integrations(config: &upstream::Config, functions: &upstream::LambdaConfig, tasks: &Tasks) -> Integrations {
    let http = Arc::new(upstream::Http::new(config, tasks.clone()).unwrap());
    let functions = upstream::Lambda::new(functions, Arc::clone(&http), Clock::system(), tasks.clone());
    Integrations::new(http, functions)
}

fn http(proxy: bool, uri: String) -> Http {
    Http {
        proxy,
        method: Method::POST,
        uri,
        timeout: Duration::from_secs(20),
        parameters: Vec::new(),
        request: mapping(&[]),
        responses: Vec::new(),
        spelling: OnceLock::new(),
    }
}

fn templates(templates: &[(&str, &str)]) -> Vec<(String, Template)> {
    templates.iter().map(|(key, text)| ((*key).to_owned(), Template::compile(text).unwrap())).collect()
}

fn mapping(pairs: &[(&str, &str)]) -> RequestMapping {
    RequestMapping {
        selection: None,
        templates: templates(pairs),
        passthrough: Passthrough::WhenNoMatch,
        content_handling: ContentHandling::Unchanged,
    }
}

fn response(key: &str, pairs: &[(&str, &str)]) -> IntegrationResponse {
    let key = match key.strip_prefix('/').and_then(|key| key.strip_suffix('/')) {
        Some(pattern) => ResponseKey::Pattern(regex::Regex::new(pattern).unwrap()),
        None => ResponseKey::Default,
    };
    IntegrationResponse {
        key,
        selection: None,
        templates: templates(pairs),
        parameters: Vec::new(),
        content_handling: ContentHandling::Unchanged,
    }
}

fn mock(request: RequestMapping, responses: Vec<IntegrationResponse>) -> Mock {
    Mock { request, responses }
}

fn map(destination: Destination, source: Source) -> ParameterMapping {
    ParameterMapping { destination, source }
}

fn to_header(name: &str, source: Source) -> ParameterMapping {
    map(Destination::Header(name.to_owned()), source)
}

fn constant(text: &str) -> Source {
    Source::Constant(text.to_owned())
}

fn context(path: &str) -> Source {
    Source::Context(path.to_owned())
}

fn body_path(path: &str) -> Source {
    Source::BodyPath(JsonPath::compile(path).unwrap())
}

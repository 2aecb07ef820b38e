//! What the themes share: a real process, a real client, a back-end that notes what it is asked.

mod backend;
mod client;
mod haproxy;
mod http;
mod process;
#[path = "../../support/redis.rs"]
pub(crate) mod redis;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use backend::{Backend, Call};
pub(crate) use client::{Arrival, Client, Ear, Notes, Refused, Said};
pub(crate) use haproxy::{HaProxy, check_haproxy};
pub(crate) use http::{Reply, call, push, try_call, try_push};
pub(crate) use process::{Ended, Process, run};

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a condition that has to be asked for.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else { panic!("{what}: not within {PATIENCE:?}") };
    value
}

/// A folder of definitions, gone when the test is.
pub(crate) struct Routes(TempDir);

impl Routes {
    /// One API, `test`.
    pub(crate) fn new(definition: &str) -> Self {
        let routes = Self(tempfile::tempdir().unwrap());
        routes.write("test.yaml", definition);
        routes
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file whole: whoever reads it sees the old or the new one.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let draft = self.0.path().join(format!("{name}.draft"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path
    }
}

/// An API without a back-end: `whoami` answers with the connection's id, anything else with `answer`.
pub(crate) fn plain_api(answer: &str) -> String {
    format!(
        r#"
apiId: test
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {{}}
routes:
  whoami:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      requestTemplates: {{$default: '{{"statusCode": 200}}'}}
      integrationResponses: {{$default: {{responseTemplates: {{$default: '$context.connectionId'}}}}}}
  $default:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      requestTemplates: {{$default: '{{"statusCode": 200}}'}}
      integrationResponses: {{$default: {{responseTemplates: {{$default: '{answer}'}}}}}}
"#
    )
}

/// An API that asks `backend` about everything: `/connect`, `/disconnect`, `/echo`, each with the connection's id in a
/// header. `whoami` needs no back-end.
pub(crate) fn backed_api(backend: &Backend) -> String {
    let hook = |path: &str| {
        format!(
            "
    integration:
      integrationType: HTTP_PROXY
      integrationUri: {}/{path}
      requestParameters:
        integration.request.header.connectionId: context.connectionId
",
            backend.url()
        )
    };
    format!(
        "{plain}  echo:
    routeResponseSelectionExpression: $default{echo}  $connect:{connect}  $disconnect:{disconnect}        \
         integration.request.header.closeCode: context.disconnectStatusCode\n",
        plain = plain_api("other"),
        echo = hook("echo"),
        connect = hook("connect"),
        disconnect = hook("disconnect"),
    )
}

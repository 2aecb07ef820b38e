//! New definitions into a running gateway.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::definition::{self, Snapshot};
use crate::gateway::Gateway;
use crate::tasks::Tasks;
use crate::telemetry::labels::Success;

/// How often `dev` looks for changed files: soon enough to feel at once, and a handful of `stat` calls.
const WATCH_EVERY: Duration = Duration::from_millis(300);

/// Loads the definitions again and deploys them, unless something is wrong with them: then they are as they were, and
/// every problem is in the log.
pub(super) fn definitions(routes: &Path, gateway: &Arc<Gateway>) {
    match definition::load(routes, &config::environment) {
        Ok(snapshot) => {
            let apis = snapshot.apis.len();
            gateway.deploy(snapshot);
            gateway.metrics().reloads.inc(Success::Ok);
            tracing::info!(apis, "definitions reloaded");
        }
        Err(problems) => {
            gateway.metrics().reloads.inc(Success::Failed);
            for problem in problems.to_string().lines() {
                tracing::error!(problem, "a definition is wrong; the old ones stay");
            }
        }
    }
}

/// Reloads whenever a definition file changes, until `tasks` is told to finish.
pub(super) async fn watch(routes: PathBuf, gateway: Arc<Gateway>, tasks: Tasks) {
    let mut seen = definition::fingerprint(&routes);
    let mut tick = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = tasks.token().cancelled() => return,
        }
        let now = definition::fingerprint(&routes);
        if now != seen {
            seen = now;
            definitions(&routes, &gateway);
        }
    }
}

/// What `dev` prints: every API with its addresses and routes.
pub(super) fn overview(snapshot: &Snapshot, public: SocketAddr, is_tls: bool) -> String {
    let (ws, http) = if is_tls { ("wss", "https") } else { ("ws", "http") };
    let port = public.port();
    let mut text = String::new();
    for api in &snapshot.apis {
        for stage in api.stages.keys() {
            // Not every resolver knows names under localhost, so the address that works everywhere comes first.
            let (id, named) = (&api.id, format!("{}.localhost:{port}", api.id));
            let _infallible = write!(
                text,
                "\n{id} {stage}\n  connect   {ws}://localhost:{port}/{id}/{stage}   or {ws}://{named}/{stage}\n  push      {http}://localhost:{port}/{id}/{stage}/@connections/{{connectionId}}\n"
            );
        }
        text.push_str("  routes   ");
        let reserved = [("$connect", api.connect.is_some()), ("$disconnect", api.disconnect.is_some())];
        let reserved = reserved.iter().filter(|(_, there)| *there).map(|(key, _)| *key);
        for key in reserved.chain(api.routes.iter().map(|(key, _)| key.as_str())) {
            let _infallible = write!(text, " {key}");
        }
        text.push('\n');
    }
    text
}

//! Every metric of the gateway: its name, help text and handle.
//!
//! Handles are made once. Counting is an atomic addition; no name or label is looked up while a message is served.
//! Series of closed labels exist from the start, so that an absent one is never mistaken for zero.

mod cluster;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::fault::{CloseReason, Fault};
use crate::ids::{ApiId, StageName};
use crate::telemetry::labels::{
    ConnectResult, EndReason, FaultKind, GroupResult, IntegrationKind, Label, ProxyHeader, PushResult, RouteKind,
    SentKind, Success,
};

pub use cluster::{ClusterMetrics, follow};

/// Content type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from a back-end next door to the longest timeout of 29 s.
const LATENCY_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

type StageLabels = [(&'static str, String); 2];

/// One handle for each value of a closed label.
pub struct Labelled<L, M> {
    handles: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M: Clone + Default> Labelled<L, M> {
    fn new(family: &Family<[(&'static str, &'static str); 1], M>) -> Self {
        Self::with(|labels| family.get_or_create_owned(labels))
    }
}

impl<L: Label, M> Labelled<L, M> {
    fn with(mut make: impl FnMut(&[(&'static str, &'static str); 1]) -> M) -> Self {
        let handles = L::ALL.iter().map(|label| make(&[(L::NAME, label.text())])).collect();
        Self { handles, label: PhantomData }
    }
}

impl<L: Label> Labelled<L, Counter> {
    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts several at once.
    pub fn add(&self, label: L, count: u64) {
        if let Some(counter) = self.handles.get(label.index()) {
            counter.inc_by(count);
        }
    }

    /// What was counted so far.
    pub fn get(&self, label: L) -> u64 {
        self.handles.get(label.index()).map_or(0, Counter::get)
    }
}

impl<L: Label> Labelled<L, Histogram> {
    /// Notes one duration.
    pub fn observe(&self, label: L, duration: Duration) {
        if let Some(histogram) = self.handles.get(label.index()) {
            histogram.observe(duration.as_secs_f64());
        }
    }
}

impl<L: Label, M> fmt::Debug for Labelled<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled").field("label", &L::NAME).finish_non_exhaustive()
    }
}

/// All metrics of a node; made once and shared.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    stages: StageFamilies,
    /// Sessions this node holds now.
    pub sessions_open: Gauge,
    /// Handshakes answered, by what became of them.
    pub connects: Labelled<ConnectResult, Counter>,
    /// Handshakes begun and not answered.
    pub handshakes_in_progress: Gauge,
    /// TLS handshakes, by whether they succeeded.
    pub tls_handshakes: Labelled<Success, Counter>,
    /// Connections that should begin with a PROXY header, by what became of it.
    pub proxy_headers: Labelled<ProxyHeader, Counter>,
    /// Sessions ended, by reason; see [`Metrics::session_ended`].
    pub session_ends: Labelled<EndReason, Counter>,
    /// `$disconnect` attempts, by whether the integration took them.
    pub disconnects: Labelled<Success, Counter>,
    /// Messages from clients, by kind of route.
    pub messages_received: Labelled<RouteKind, Counter>,
    /// Payload bytes of messages from clients.
    pub received_bytes: Counter,
    /// Messages to clients, by why they were sent.
    pub messages_sent: Labelled<SentKind, Counter>,
    /// Payload bytes of messages to clients.
    pub sent_bytes: Counter,
    /// Pushes to one connection, by what became of them.
    pub pushes: Labelled<PushResult, Counter>,
    /// Repeats of a push that was done, by an SDK that did not hear so; answered 200, not done again.
    pub pushes_repeated: Counter,
    /// Deliveries to members of groups, by what became of them.
    pub group_deliveries: Labelled<GroupResult, Counter>,
    /// Faults shown to clients and back-ends; see [`Metrics::fault`].
    pub faults: Labelled<FaultKind, Counter>,
    /// How long integrations took, by kind.
    pub integration_latency: Labelled<IntegrationKind, Histogram>,
    /// Exchanges begun and not finished.
    pub exchanges_in_flight: Gauge,
    /// Bytes waiting in all outboxes, and of messages that are not whole yet: what the node's budget bounds.
    pub outbox_bytes: Gauge,
    /// Messages dropped because an outbox was full or its session ended before they were written.
    pub outbox_dropped: Counter,
    /// Access log lines dropped because the writer did not keep up.
    pub access_log_dropped: Counter,
    /// Reloads of the definitions, by whether the new ones were taken.
    pub reloads: Labelled<Success, Counter>,
    /// This node among others.
    pub cluster: ClusterMetrics,
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut r = Registrar(Registry::with_prefix("causeway"));
        Self {
            sessions_open: r.gauge("sessions_open", "WebSocket sessions this node holds now"),
            connects: r.counters("connects", "WebSocket handshakes answered, by result"),
            handshakes_in_progress: r.gauge("handshakes_in_progress", "Handshakes begun and not answered"),
            tls_handshakes: r.counters("tls_handshakes", "TLS handshakes, by result"),
            proxy_headers: r.counters("proxy_headers", "Connections that should begin with a PROXY header, by result"),
            session_ends: r.counters("session_ends", "Sessions ended, by reason"),
            disconnects: r.counters("disconnects", "Attempts to run $disconnect, by result"),
            messages_received: r.counters("messages_received", "Messages from clients, by kind of route"),
            received_bytes: r.bytes_counter("received", "Payload of messages from clients, inflated"),
            messages_sent: r.counters("messages_sent", "Messages to clients, by source"),
            sent_bytes: r.bytes_counter("sent", "Payload of messages to clients, before compression"),
            pushes: r.counters("pushes", "Pushes to one connection, by result"),
            pushes_repeated: r.counter("pushes_repeated", "Repeats of a push that was done before, not done again"),
            group_deliveries: r.counters("group_deliveries", "Deliveries to members of groups, by result"),
            faults: r.counters("faults", "Failures shown to clients and back-ends, by kind"),
            integration_latency: r.histograms("integration_latency", "Duration of integration calls, by kind"),
            exchanges_in_flight: r.gauge("exchanges_in_flight", "Exchanges begun and not finished"),
            outbox_bytes: r.bytes_gauge(
                "outbox",
                "Waiting for slow clients or in messages that are not whole, all sessions together",
            ),
            outbox_dropped: r.counter("outbox_dropped_messages", "Messages dropped from or before a full outbox"),
            access_log_dropped: r
                .counter("access_log_dropped_lines", "Access log lines dropped because writing did not keep up"),
            reloads: r.counters("definition_reloads", "Reloads of the API definitions, by result"),
            cluster: ClusterMetrics::new(&mut r),
            stages: StageFamilies::new(&mut r),
            registry: r.0,
        }
    }

    /// Handles for one stage, made when it is loaded and kept with it.
    pub fn stage(&self, api: &ApiId, stage: &StageName) -> StageMetrics {
        let labels = stage_labels(api, stage);
        let families = &self.stages;
        StageMetrics {
            connects: families.connects.get_or_create_owned(&labels),
            messages: families.messages.get_or_create_owned(&labels),
            client_errors: families.client_errors.get_or_create_owned(&labels),
            integration_errors: families.integration_errors.get_or_create_owned(&labels),
            execution_errors: families.execution_errors.get_or_create_owned(&labels),
            integration_latency: families.integration_latency.get_or_create_owned(&labels),
        }
    }

    /// Takes the series of a stage out, once it has left the definitions. Handles still held count unseen.
    pub fn forget_stage(&self, api: &ApiId, stage: &StageName) {
        let labels = stage_labels(api, stage);
        let families = &self.stages;
        for family in families.counters() {
            family.remove(&labels);
        }
        families.integration_latency.remove(&labels);
    }

    /// Counts a failure that somebody is shown.
    pub fn fault(&self, fault: &Fault) {
        self.faults.inc(fault.into());
    }

    /// Counts the end of a session.
    pub fn session_ended(&self, reason: &CloseReason) {
        self.session_ends.inc(reason.into());
    }

    /// Everything in the `OpenMetrics` text format, served as [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string cannot fail, and a half page would lack its end mark.
        let _infallible = text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The counters that the service publishes for a stage (specification 11.8).
#[derive(Debug, Clone)]
pub struct StageMetrics {
    /// `ConnectCount`: handshakes that reached the `$connect` route, accepted or refused by it.
    pub connects: Counter,
    /// `MessageCount`: one for a connect, a disconnect, a client message that matched a route, a frame to a client.
    pub messages: Counter,
    /// `ClientError`: refused by the gateway before the integration: no route, validation, throttling, authorization.
    pub client_errors: Counter,
    /// `IntegrationError`: the integration answered 4xx or 5xx.
    pub integration_errors: Counter,
    /// `ExecutionError`: calling the integration failed, as by a timeout.
    pub execution_errors: Counter,
    /// `IntegrationLatency`, in seconds; not for callbacks and MOCK.
    pub integration_latency: Histogram,
}

#[derive(Debug)]
struct StageFamilies {
    connects: Family<StageLabels, Counter>,
    messages: Family<StageLabels, Counter>,
    client_errors: Family<StageLabels, Counter>,
    integration_errors: Family<StageLabels, Counter>,
    execution_errors: Family<StageLabels, Counter>,
    integration_latency: Family<StageLabels, Histogram, fn() -> Histogram>,
}

impl StageFamilies {
    fn new(r: &mut Registrar) -> Self {
        let latency = Family::new_with_constructor(latency as fn() -> Histogram);
        r.0.register_with_unit(
            "stage_integration_latency",
            "IntegrationLatency: duration of integration calls, by stage",
            Unit::Seconds,
            latency.clone(),
        );
        Self {
            connects: r.family("stage_connects", "ConnectCount: handshakes that reached $connect, by stage"),
            messages: r.family("stage_messages", "MessageCount: messages in both directions, by stage"),
            client_errors: r.family("stage_client_errors", "ClientError: refused before the integration, by stage"),
            integration_errors: r
                .family("stage_integration_errors", "IntegrationError: integration answered 4xx or 5xx, by stage"),
            execution_errors: r
                .family("stage_execution_errors", "ExecutionError: calling the integration failed, by stage"),
            integration_latency: latency,
        }
    }

    const fn counters(&self) -> [&Family<StageLabels, Counter>; 5] {
        [&self.connects, &self.messages, &self.client_errors, &self.integration_errors, &self.execution_errors]
    }
}

fn stage_labels(api: &ApiId, stage: &StageName) -> StageLabels {
    [("api", api.as_str().to_owned()), ("stage", stage.as_str().to_owned())]
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// Counts up a gauge for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl InFlight {
    /// One more now, one less when dropped.
    pub fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes handles and registers them. Suffixes for units and `_total` come from the kind of metric.
struct Registrar(Registry);

impl Registrar {
    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn bytes_gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        gauge
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn bytes_counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register_with_unit(name, help, Unit::Bytes, counter.clone());
        counter
    }

    fn counters<L: Label>(&mut self, name: &str, help: &str) -> Labelled<L, Counter> {
        let family = Family::default();
        self.0.register(name, help, family.clone());
        Labelled::new(&family)
    }

    fn histograms<L: Label>(&mut self, name: &str, help: &str) -> Labelled<L, Histogram> {
        let family: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(latency);
        self.0.register_with_unit(name, help, Unit::Seconds, family.clone());
        Labelled::with(|labels| family.get_or_create_owned(labels))
    }

    fn family(&mut self, name: &str, help: &str) -> Family<StageLabels, Counter> {
        let family = Family::default();
        self.0.register(name, help, family.clone());
        family
    }
}

#[cfg(test)]
mod tests;

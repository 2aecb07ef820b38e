//! Every metric moves, has a help text, and keeps to the naming.

use super::*;
use crate::telemetry::labels::LinkOutcome;

/// The lines of a page that are samples, as name with labels and value.
fn samples(metrics: &Metrics) -> Vec<(String, f64)> {
    let page = metrics.render();
    assert!(page.ends_with("# EOF\n"));
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    let samples = samples(metrics);
    let found = samples.iter().find(|(sample, _)| sample == name);
    found.unwrap_or_else(|| panic!("no {name} in {samples:#?}")).1
}

/// A name with labels, and what moves it.
type Move = (&'static str, fn(&Metrics));

/// Every metric, moved once.
fn moves() -> Vec<Move> {
    [of_sessions(), of_the_cluster()].concat()
}

fn of_the_cluster() -> Vec<Move> {
    vec![
        (r#"causeway_link_requests_total{outcome="not_sent"}"#, |m| m.cluster.link_requests.inc(LinkOutcome::NotSent)),
        ("causeway_cluster_nodes", |m| {
            m.cluster.nodes.inc();
        }),
        ("causeway_registry_up", |m| {
            m.cluster.registry_up.inc();
        }),
        ("causeway_registry_unwritten", |m| {
            m.cluster.registry_unwritten.inc();
        }),
        ("causeway_registry_failures_total", |m| {
            m.cluster.registry_failures.inc();
        }),
        ("causeway_registry_writes_total", |m| {
            m.cluster.registry_writes.inc();
        }),
        ("causeway_node_burials_total", |m| {
            m.cluster.burials.inc();
        }),
        ("causeway_node_expulsions_total", |m| {
            m.cluster.expulsions.inc();
        }),
        ("causeway_recovered_disconnects_total", |m| {
            m.cluster.recovered.inc();
        }),
        ("causeway_fan_outs_short_total", |m| {
            m.cluster.fan_outs_short.inc();
        }),
        ("causeway_links_open", |m| {
            m.cluster.links_open.inc();
        }),
        ("causeway_links_unreachable", |m| {
            m.cluster.links_unreachable.inc();
        }),
        ("causeway_link_received_bytes_total", |m| {
            m.cluster.link_received.inc();
        }),
        ("causeway_link_sent_bytes_total", |m| {
            m.cluster.link_sent.inc();
        }),
        ("causeway_links_made_total", |m| {
            m.cluster.links_made.inc();
        }),
        ("causeway_links_lost_total", |m| {
            m.cluster.links_lost.inc();
        }),
        ("causeway_link_dials_failed_total", |m| {
            m.cluster.link_dials_failed.inc();
        }),
        ("causeway_link_strangers_total", |m| {
            m.cluster.link_strangers.inc();
        }),
        ("causeway_told_unreachable_total", |m| {
            m.cluster.told_unreachable.inc();
        }),
    ]
}

fn of_sessions() -> Vec<Move> {
    vec![
        ("causeway_sessions_open", |m| {
            m.sessions_open.inc();
        }),
        (r#"causeway_connects_total{result="busy"}"#, |m| m.connects.inc(ConnectResult::Busy)),
        ("causeway_handshakes_in_progress", |m| {
            m.handshakes_in_progress.inc();
        }),
        (r#"causeway_tls_handshakes_total{result="failed"}"#, |m| {
            m.tls_handshakes.inc(Success::Failed);
        }),
        (r#"causeway_proxy_headers_total{result="refused"}"#, |m| {
            m.proxy_headers.inc(ProxyHeader::Refused);
        }),
        (r#"causeway_session_ends_total{reason="slow_consumer"}"#, |m| {
            m.session_ended(&CloseReason::SlowConsumer);
        }),
        (r#"causeway_disconnects_total{result="ok"}"#, |m| m.disconnects.inc(Success::Ok)),
        (r#"causeway_messages_received_total{route="custom"}"#, |m| {
            m.messages_received.inc(RouteKind::Custom);
        }),
        ("causeway_received_bytes_total", |m| {
            m.received_bytes.inc();
        }),
        (r#"causeway_messages_sent_total{source="push"}"#, |m| m.messages_sent.inc(SentKind::Push)),
        ("causeway_sent_bytes_total", |m| {
            m.sent_bytes.inc();
        }),
        (r#"causeway_pushes_total{result="gone"}"#, |m| m.pushes.inc(PushResult::Gone)),
        ("causeway_pushes_repeated_total", |m| {
            m.pushes_repeated.inc();
        }),
        (r#"causeway_group_deliveries_total{result="dropped"}"#, |m| {
            m.group_deliveries.inc(GroupResult::Dropped);
        }),
        (r#"causeway_faults_total{kind="GONE"}"#, |m| m.fault(&Fault::Gone)),
        (r#"causeway_integration_latency_seconds_count{kind="http_proxy"}"#, |m| {
            m.integration_latency.observe(IntegrationKind::HttpProxy, Duration::from_millis(3));
        }),
        ("causeway_exchanges_in_flight", |m| {
            m.exchanges_in_flight.inc();
        }),
        ("causeway_outbox_bytes", |m| {
            m.outbox_bytes.inc();
        }),
        ("causeway_outbox_dropped_messages_total", |m| {
            m.outbox_dropped.inc();
        }),
        ("causeway_access_log_dropped_lines_total", |m| {
            m.access_log_dropped.inc();
        }),
        (r#"causeway_definition_reloads_total{result="failed"}"#, |m| {
            m.reloads.inc(Success::Failed);
        }),
    ]
}

#[test]
fn every_metric_moves_by_one_and_moves_no_other() {
    let metrics = Metrics::new();
    for (name, step) in moves() {
        let before = samples(&metrics);
        step(&metrics);
        let after = samples(&metrics);
        let moved: Vec<&String> = before
            .iter()
            .zip(&after)
            .filter(|(old, new)| old.1.to_bits() != new.1.to_bits())
            .map(|(_, new)| &new.0)
            .collect();
        assert!(moved.iter().any(|moved| *moved == name), "{name} not among {moved:?}");
        let of_histogram = name.contains("_seconds_count");
        assert!(moved.len() == 1 || of_histogram, "{name} moved {moved:?}");
        assert!((value(&metrics, name) - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn no_metric_is_left_out_of_that_test() {
    let metrics = Metrics::new();
    let tested: Vec<&str> = moves().into_iter().map(|(name, _)| name.split(['{', ' ']).next().unwrap()).collect();
    for line in metrics.render().lines().filter(|line| line.starts_with("# TYPE")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(name.starts_with("causeway_"), "{name}");
        let stage = name.starts_with("causeway_stage_");
        let found =
            tested.iter().any(|tested| [name, &format!("{name}_total"), &format!("{name}_count")].contains(tested));
        assert!(found || stage, "{name} is never seen to move");
    }
}

#[test]
fn every_metric_has_a_help_text() {
    let page = Metrics::new().render();
    let named = |kind: &str| page.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(named("# HELP"), named("# TYPE"));
    for line in page.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(line.split(' ').count() > 5, "{line}");
    }
}

#[test]
fn counters_of_a_stage_carry_its_names_and_leave_with_it() {
    let metrics = Metrics::new();
    let (api, stage) = (ApiId::parse("chat").unwrap(), StageName::parse("dev").unwrap());
    let handles = metrics.stage(&api, &stage);
    handles.connects.inc();
    handles.messages.inc_by(2);
    handles.client_errors.inc();
    handles.integration_errors.inc();
    handles.execution_errors.inc();
    handles.integration_latency.observe(0.2);
    // A second look at the same stage goes on counting.
    metrics.stage(&api, &stage).connects.inc();
    for (name, expected) in [
        ("connects_total", 2.0),
        ("messages_total", 2.0),
        ("client_errors_total", 1.0),
        ("integration_errors_total", 1.0),
        ("execution_errors_total", 1.0),
        ("integration_latency_seconds_count", 1.0),
        ("integration_latency_seconds_sum", 0.2),
    ] {
        let found = value(&metrics, &format!(r#"causeway_stage_{name}{{api="chat",stage="dev"}}"#));
        assert!((found - expected).abs() < 1e-9, "{name}: {found}");
    }
    metrics.forget_stage(&api, &stage);
    assert!(!metrics.render().contains(r#"api="chat""#));
}

#[test]
fn what_is_in_flight_is_counted_while_it_lives() {
    let metrics = Metrics::new();
    let one = InFlight::begin(&metrics.exchanges_in_flight);
    let two = InFlight::begin(&metrics.exchanges_in_flight);
    assert_eq!(metrics.exchanges_in_flight.get(), 2);
    drop((one, two));
    assert_eq!(metrics.exchanges_in_flight.get(), 0);
}

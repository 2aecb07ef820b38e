//! The network between nodes and around one: what is cut there is no death.

use super::harness::{Cluster, ids};
use crate::support::{Said, eventually, until};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_cannot_reach_each_other_answer_503_and_bury_nobody() {
    let cluster = Cluster::start(3).await;
    let mut ears = Vec::new();
    for node in 0..3 {
        ears.extend(cluster.crowd(node, 2).await);
    }
    let incarnations = cluster.incarnations().await;
    for is_cut in [true, false] {
        if is_cut {
            cluster.cut_links();
        } else {
            cluster.freeze_links();
        }
        // Three leases without a link: whoever renews its lease lives.
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(3) {
            for node in 0..3 {
                for (owner, ear) in ears.iter().enumerate().step_by(2).map(|(n, ear)| (n / 2, ear)) {
                    let expected = if owner == node { 200 } else { 503 };
                    assert_eq!(cluster.push(node, &ear.id, "cut").await, expected, "{node} to {owner}");
                }
            }
        }
        let sent = cluster.callback(0, "POST", "@all", "to whom it reaches").await.body;
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!((&sent["delivered"], &sent["unreachable"]), (&2.into(), &2.into()), "{sent}");
        let listed = cluster.admin(1, "GET", "/connections").await.body;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["connections"].as_array().unwrap().len(), 2);
        assert_eq!(listed["unreachable"].as_array().unwrap().len(), 2, "what is missing is named: {listed}");
        cluster.restore_links();
        for node in 0..3 {
            for ear in &ears {
                cluster.push_until(node, &ear.id, 200, 410).await;
            }
        }
    }
    cluster.nobody_died(&incarnations).await;
    assert!(cluster.ends().is_empty());
    drop(ears);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_the_registry_alone_is_not_buried_and_goes_on() {
    let cluster = Cluster::start(3).await;
    let (cut, other) = (cluster.crowd(0, 3).await, cluster.crowd(1, 3).await);
    let incarnations = cluster.incarnations().await;
    cluster.recorded(&ids(&cut).into_iter().chain(ids(&other)).collect()).await;
    cluster.cut_registry(0);
    until("degraded", async || cluster.ready(0).await.starts_with("degraded: ")).await;
    until("its lease has run out", async || {
        cluster.nodes(1).await.0.iter().any(|node| node.name == "node0" && node.state == "late")
    })
    .await;
    // Work goes on in every direction, for longer than suspicion takes.
    let started = std::time::Instant::now();
    let mut new = Vec::new();
    while started.elapsed() < std::time::Duration::from_secs(4) {
        for node in 0..3 {
            assert_eq!(cluster.push(node, &cut[0].id, "over the link").await, 200);
            assert_eq!(cluster.push(node, &other[0].id, "over the link").await, 200);
        }
        new.push(cluster.connect(0).await);
        let newest = &new[new.len() - 1];
        assert_eq!(cluster.push(2, &newest.id, "welcome").await, 200);
    }
    assert_eq!(cluster.nodes(0).await.1.split(':').next(), Some("away"));
    let all: Vec<_> = ids(&cut).into_iter().chain(ids(&other)).chain(ids(&new)).collect();
    assert!(cluster.records().len() < all.len(), "the new ones cannot be recorded yet");
    cluster.restore_registry(0);
    cluster.recorded(&all.iter().cloned().collect()).await;
    cluster.settled().await;
    assert_eq!(cluster.ready(0).await, "ready\n");
    assert!(cluster.ends().is_empty());
    cluster.nobody_died(&incarnations).await;
    let log = cluster.node(1).log() + &cluster.node(2).log();
    assert!(log.contains("but it answers: it lives"), "{log}");
    drop((cut, other, new));
    eventually("all ends", || cluster.ends().len() == all.len()).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_links_are_slow_and_nothing_else() {
    let cluster = Cluster::start(2).await;
    let ear = cluster.connect(0).await;
    cluster.delay_links(std::time::Duration::from_millis(150));
    for n in 0..5 {
        assert_eq!(cluster.push(1, &ear.id, &format!("late {n}")).await, 200);
    }
    ear.hears("late 4").await;
    let expected: Vec<_> = (0..5).map(|n| Said::Text(format!("late {n}"))).collect();
    assert_eq!(ear.heard(), expected, "in order, each once");
    cluster.restore_links();
    drop(ear);
    cluster.finish().await;
}

/// A node's certificate and key by an authority, as files.
fn certify(folder: &std::path::Path, name: &str, issuer: &Issuer) -> [String; 2] {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let cert = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap();
    let write = |kind: &str, text: &str| {
        let file = folder.join(format!("{name}.{kind}.pem"));
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        file.display().to_string()
    };
    [write("cert", &cert.pem()), write("key", &key.serialize_pem())]
}

type Issuer = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority() -> Issuer {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_may_prove_themselves_by_certificates_of_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (authority(), authority());
    let ca = folder.path().join("ca.pem").display().to_string();
    std::fs::write(&ca, ours.pem()).unwrap();
    let mut cluster = Cluster::prepare(3, &[]).await;
    cluster.forget_secret();
    for (node, issuer) in [(0, &ours), (1, &ours), (2, &others)] {
        let [cert, key] = certify(folder.path(), &format!("node{node}"), issuer);
        cluster.set(node, &["--cluster-cert", &cert, "--cluster-key", &key, "--cluster-ca", &ca]);
        cluster.begin(node).await;
    }
    cluster.settled().await;
    let ears = [cluster.connect(0).await, cluster.connect(1).await, cluster.connect(2).await];
    assert_eq!(cluster.push(0, &ears[1].id, "by certificate").await, 200);
    assert_eq!(cluster.push(1, &ears[0].id, "by certificate").await, 200);
    // The third has a certificate, of somebody else's.
    for (from, to) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
        assert_eq!(cluster.push(from, &ears[to].id, "no way").await, 503, "{from} to {to}");
    }
    drop(ears);
    cluster.finish().await;
}

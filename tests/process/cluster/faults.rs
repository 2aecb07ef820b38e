//! Everything in sequence, under load: every push and its answer is counted.

use std::time::Duration;

use tokio::time::sleep;

use super::harness::Cluster;
use super::load::{Caller, Customers, Field, Load, all_answered, all_told, check};
use crate::support::{Notes, Said, eventually, until};

/// So long each fault lasts: two leases.
const FAULT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_taken_is_lost_and_nobody_alive_is_gone() {
    let mut cluster = Cluster::with(3, &["--recovery-claim", "5s"]).await;
    let field = Field::of(&cluster);
    let (load, caller) = (Load::on(field.clone()), Caller::on(field.clone()));
    let customers = Customers::start(&field, 12);
    load.goes_on(50).await;

    cluster.kill(2);
    load.goes_on(20).await;
    cluster.begin(2).await;
    field.is_now(&cluster, &[0, 1, 2]);
    load.goes_on(50).await;

    let before = cluster.incarnation(1).await;
    cluster.freeze(1);
    // Nobody asks it anything while it sleeps, as a load balancer's checks would have it.
    field.is_now(&cluster, &[0, 2]);
    until("its burial", async || {
        let (nodes, _) = cluster.nodes(0).await;
        !nodes.iter().any(|node| node.incarnation == before)
    })
    .await;
    cluster.thaw(1);
    until("its new life", async || ![String::new(), before.clone()].contains(&cluster.incarnation(1).await)).await;
    field.is_now(&cluster, &[0, 1, 2]);
    load.goes_on(50).await;

    for cut in [Cluster::cut_links, Cluster::freeze_links] {
        cut(&cluster);
        sleep(FAULT).await;
        cluster.restore_links();
        load.goes_on(50).await;
    }

    cluster.redis.kill();
    sleep(FAULT).await;
    cluster.redis.restart();
    load.goes_on(50).await;
    cluster.redis.pause();
    sleep(FAULT).await;
    cluster.redis.resume();
    load.goes_on(50).await;

    // A node that dies while Redis is away: proven only when it is back.
    cluster.cut_registries();
    sleep(FAULT / 2).await;
    field.is_now(&cluster, &[1, 2]);
    cluster.kill(0);
    sleep(FAULT / 2).await;
    cluster.restore_registries();
    cluster.begin(0).await;
    field.is_now(&cluster, &[0, 1, 2]);
    cluster.settled().await;
    load.goes_on(50).await;

    eventually("everybody to be back", || customers.open() >= 12).await;
    let (told, calls) = (load.finish().await, caller.finish().await);
    let visits = customers.finish().await;
    let lost = |said: &Said| matches!(said, Said::Gone | Said::Close(1012));
    check(&told, &visits, lost);
    all_answered(&cluster.backend, &visits, lost);
    let ends: Vec<_> = visits.values().filter_map(Notes::end).map(|(_, said)| said).collect();
    assert!(ends.iter().all(lost), "nobody's session ended but by a death: {ends:?}");
    assert!(!calls.is_empty());
    let repeats = all_told(&cluster).await;
    eprintln!(
        "{} pushes taken, {} unavailable, {} gone; {} sessions, {} lost with their node, {repeats} ends told twice",
        told.taken,
        told.unavailable,
        told.gone.len(),
        visits.len(),
        ends.len(),
    );
    assert!(told.taken > 300, "{}", told.taken);
    cluster.finish().await;
}

//! Every node reaches every connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::{Cluster, ids};
use crate::support::{Client, Ear, Said, eventually, until};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_pushes_to_describes_and_closes_every_connection() {
    let cluster = Cluster::start(3).await;
    for owner in 0..3 {
        for caller in 0..3 {
            let ear = cluster.connect(owner).await;
            let message = format!("from {caller} to {owner}");
            assert_eq!(cluster.push(caller, &ear.id, &message).await, 200);
            ear.hears(&message).await;
            let path = format!("@connections/{}", ear.id);
            let told = cluster.callback(caller, "GET", &path, "").await;
            assert_eq!(told.status, 200, "{}", told.body);
            assert_eq!(json(&told.body)["identity"]["sourceIp"], "127.0.0.1");
            assert_eq!(cluster.callback(caller, "DELETE", &path, "").await.status, 204);
            assert_eq!(ear.end().await, Said::Close(1000));
            for method in ["GET", "POST", "DELETE"] {
                for asked in 0..3 {
                    assert_eq!(cluster.callback(asked, method, &path, "").await.status, 410, "{method} on {asked}");
                }
            }
        }
    }
    eventually("nine ends", || cluster.ends().len() == 9).await;
    assert!(cluster.ends().values().all(|calls| calls.len() == 1));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_span_the_nodes_and_their_counts_are_summed() {
    let cluster = Cluster::start(3).await;
    let mut ears = Vec::new();
    for node in 0..3 {
        ears.extend(cluster.crowd(node, 4).await);
    }
    // The first two of each node join by a call to another node, the third by a message of its own; the fourth stays out.
    let mut members = BTreeSet::new();
    for (n, ear) in ears.iter_mut().enumerate() {
        match n % 4 {
            0 | 1 => {
                let path = format!("@groups/room/{}", ear.id);
                assert_eq!(cluster.callback((n / 4 + 1) % 3, "PUT", &path, "").await.status, 204);
            }
            2 => assert!(ear.send(r#"{"action":"join","room":"room"}"#).await),
            _ => continue,
        }
        members.insert(ear.id.clone());
    }
    let listed = async |node: usize| {
        let (mut found, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = json(&cluster.callback(node, "GET", &format!("@groups/room?limit=2{after}"), "").await.body);
            let ids = page["connectionIds"].as_array().unwrap();
            assert!(ids.len() <= 2 && page["unreachable"].is_null(), "{page}");
            for id in ids {
                assert!(found.insert(id.as_str().unwrap().to_owned()), "{id} twice");
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return found,
            }
        }
    };
    for node in 0..3 {
        until("all members listed", async || listed(node).await == members).await;
        let message = format!("to the room from {node}");
        let sent = json(&cluster.callback(node, "POST", "@groups/room", &message).await.body);
        assert_eq!(sent, serde_json::json!({"delivered": 9, "dropped": 0, "gone": 0}));
        for ear in ears.iter().filter(|ear| members.contains(&ear.id)) {
            ear.hears(&message).await;
        }
        let message = format!("to all from {node}");
        let sent = json(&cluster.callback(node, "POST", "@all", &message).await.body);
        assert_eq!(sent, serde_json::json!({"delivered": 12, "dropped": 0, "gone": 0}));
        for ear in &ears {
            ear.hears(&message).await;
        }
    }
    // One leaves by a call to another node, one by its own word, one by hanging up.
    let path = format!("@groups/room/{}", ears[0].id);
    assert_eq!(cluster.callback(2, "DELETE", &path, "").await.status, 204);
    assert!(ears[6].send(r#"{"action":"leave","room":"room"}"#).await);
    let left = ears.remove(9);
    let left = std::mem::replace(&mut ears, vec![left]);
    let gone = ids(&ears).pop().unwrap();
    ears.clear();
    for id in [&left[0].id, &left[6].id, &gone] {
        members.remove(id);
    }
    for node in 0..3 {
        until("the others listed", async || listed(node).await == members).await;
        let sent = json(&cluster.callback(node, "POST", "@groups/room", "those who stayed").await.body);
        assert_eq!(sent["delivered"], 6);
    }
    let heard = |ear: &Ear| (ear.count("those who stayed"), ear.count("to the room from 1"));
    eventually("those who stayed", || {
        left.iter().filter(|ear| members.contains(&ear.id)).all(|ear| heard(ear) == (3, 1))
    })
    .await;
    let outside = left.iter().filter(|ear| !members.contains(&ear.id));
    assert!(outside.map(heard).all(|(stayed, _)| stayed == 0));
    drop(left);
    until("no key of the group", async || cluster.keys("causeway:g:*").is_empty()).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_list_goes_over_all_nodes_page_by_page() {
    let cluster = Cluster::start(3).await;
    let mut ears = Vec::new();
    for (node, count) in [(0, 5), (1, 1), (2, 9)] {
        ears.extend(cluster.crowd(node, count).await);
    }
    let expected: BTreeSet<_> = ids(&ears).into_iter().collect();
    for node in 0..3 {
        for limit in [1, 4, 15, 100] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = json(&cluster.admin(node, "GET", &format!("/connections?limit={limit}{after}")).await.body);
                assert_eq!((&page["open"], &page["unreachable"]), (&15.into(), &serde_json::json!([])), "{page}");
                let rows = page["connections"].as_array().unwrap();
                assert!(rows.len() <= limit);
                found.extend(rows.iter().map(|row| row["connectionId"].as_str().unwrap().to_owned()));
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(found.len(), 15, "each once");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
    let one = json(&cluster.admin(1, "GET", &format!("/connections/{}", ears[0].id)).await.body);
    assert_eq!(one["identity"]["sourceIp"], "127.0.0.1");
    drop(ears);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_is_delivered_once_through_whatever_node() {
    let cluster = Cluster::start(3).await;
    let ear = cluster.connect(0).await;
    for node in [0, 1, 2, 1, 0] {
        assert_eq!(cluster.invoke(node, &ear.id, "once", "call-1").await, 200);
    }
    // Another call with the same words is another message, and the same name at another connection another call.
    let other = cluster.connect(1).await;
    assert_eq!(cluster.invoke(1, &ear.id, "once more", "call-2").await, 200);
    assert_eq!(cluster.invoke(2, &other.id, "once", "call-1").await, 200);
    ear.hears("once more").await;
    other.hears("once").await;
    assert_eq!(ear.heard(), [Said::Text("once".into()), Said::Text("once more".into())]);
    assert!(cluster.metric(0, "causeway_pushes_repeated_total").await >= 4);
    drop((ear, other));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_was_lost_is_not_done_again() {
    let cluster = Cluster::start(2).await;
    let ear = cluster.connect(0).await;
    assert_eq!(cluster.push(1, &ear.id, "the link is there").await, 200);
    cluster.freeze_links();
    assert_eq!(cluster.invoke(1, &ear.id, "once", "call-1").await, 503);
    cluster.restore_links();
    // Whether the first came through late or was lost on the way, nobody here knows.
    until("the repeat answered", async || match cluster.invoke(1, &ear.id, "once", "call-1").await {
        200 => true,
        status => {
            assert_eq!(status, 503);
            false
        }
    })
    .await;
    assert_eq!(cluster.push(1, &ear.id, "the end").await, 200);
    ear.hears("the end").await;
    // Long enough for what may still be on its way: it came by the same link.
    assert_eq!(cluster.callback(0, "GET", &format!("@connections/{}", ear.id), "").await.status, 200);
    assert_eq!(ear.count("once"), 1);
    drop(ear);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_on_one_redis_do_not_see_each_other() {
    let one = Cluster::start(1).await;
    let mut other = Cluster::prepare(1, &["--redis-prefix", "other"]).await;
    let redis = format!("redis://127.0.0.1:{}", one.redis.port);
    other.set(0, &["--redis", &redis]);
    other.begin(0).await;
    other.settled().await;
    one.settled().await;
    let (mine, theirs) = (one.connect(0).await, other.connect(0).await);
    one.recorded(&[mine.id.clone()].into()).await;
    until("the other's record", async || !one.keys("{other:r:*}").is_empty()).await;
    // Both may have made their id under the same number: then each has ended there, else nobody knows it.
    for (cluster, id) in [(&one, &theirs.id), (&other, &mine.id)] {
        assert!([410, 503].contains(&cluster.push(0, id, "astray").await));
    }
    assert_eq!(one.callback(0, "POST", "@all", "ours").await.body, r#"{"delivered":1,"dropped":0,"gone":0}"#);
    mine.hears("ours").await;
    assert!(theirs.heard().is_empty());
    drop((mine, theirs));
    other.stop(0).await;
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_here_is_refused_alike_through_another_node() {
    let cluster = Cluster::start(2).await;
    let ear = cluster.connect(0).await;
    let other = ear.id.replace(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase(), "A");
    for node in [0, 1] {
        let status = async |method, path: &str, body: &str| cluster.callback(node, method, path, body).await.status;
        let to = format!("@connections/{}", ear.id);
        assert_eq!(status("POST", &to, &"x".repeat(131_073)).await, 413, "{node}");
        assert_eq!(status("POST", &to, &"x".repeat(1_000)).await, 200, "{node}");
        assert_eq!(status("POST", "@connections/nonsense", "x").await, 400, "{node}");
        assert_ne!(status("POST", &format!("@connections/{other}"), "x").await, 200, "{node}");
        assert_eq!(status("PUT", &format!("@groups/{}/{}", "g".repeat(1_000), ear.id), "").await, 400, "{node}");
    }
    // One that does not read: its outbox is full for whoever pushes.
    let mut deaf = Client::connect(cluster.node(0).public).await;
    let id = deaf.id().await;
    for node in [1, 0] {
        let message = "m".repeat(30_000);
        until("a full outbox", async || match cluster.push(node, &id, &message).await {
            429 => true,
            status => {
                assert_eq!(status, 200, "{node}");
                false
            }
        })
        .await;
    }
    assert_eq!(cluster.push(1, &ear.id, "others are not concerned").await, 200);
    drop((ear, deaf));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_at_once_through_another_node_come_each_once() {
    let cluster = Cluster::start(2).await;
    let ears = cluster.crowd(0, 10).await;
    let (messages, others) = (40, ears.iter().flat_map(|ear| (0..40).map(move |n| (ear, n))));
    let pushes = others.map(|(ear, n)| {
        let cluster = &cluster;
        async move { cluster.push(1, &ear.id, &format!("{n}")).await }
    });
    let answers = futures_util::future::join_all(pushes).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    for ear in &ears {
        eventually("all of them", || ear.heard().len() >= messages).await;
        assert!((0..messages).all(|n| ear.count(&n.to_string()) == 1), "{:?}", ear.heard());
    }
    drop(ears);
    cluster.finish().await;
}

/// Commands that Redis is given in so much time, a second of each kind.
async fn commands_a_second(cluster: &Cluster, period: Duration) -> BTreeMap<String, f64> {
    let (before, started) = (cluster.redis.command_calls(), Instant::now());
    // What is measured here happens in time alone.
    tokio::time::sleep(period).await;
    let (after, seconds) = (cluster.redis.command_calls(), started.elapsed().as_secs_f64());
    let more = |(name, calls): (String, u64)| {
        let more = calls - before.get(&name).copied().unwrap_or_default();
        (more > 0).then_some((name, more as f64 / seconds))
    };
    after.into_iter().filter_map(more).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_cost_redis_nothing() {
    let cluster = Cluster::start(2).await;
    let alone = commands_a_second(&cluster, Duration::from_secs(3)).await;
    let mut ears = cluster.crowd(0, 100).await;
    ears.extend(cluster.crowd(1, 100).await);
    cluster.recorded(&ids(&ears).into_iter().collect()).await;
    let idle = commands_a_second(&cluster, Duration::from_secs(10)).await;
    // A lease of a second is renewed ten times as often, by one script each: busy machines renew less.
    assert!(idle["evalsha"] > 2.0 && idle["evalsha"] < 21.0, "{idle:?}");
    for (name, rate) in &idle {
        let before = alone.get(name).copied().unwrap_or_default();
        assert!(
            rate / idle["evalsha"] <= before / alone["evalsha"] * 1.1,
            "{name}: {idle:?}, without sessions {alone:?}"
        );
    }
    drop(ears);
    cluster.finish().await;
}

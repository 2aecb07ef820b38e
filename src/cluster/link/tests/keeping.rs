//! Which links there are: made ahead of need, lost and made again, crossed, let go.

use super::net::Net;
use super::*;

/// What another node believes about one behind `net`.
fn behind(node: &Node, net: &Net) -> Peer {
    peer(node.peer.incarnation.get(), &net.address().to_string())
}

#[tokio::test]
async fn the_smaller_incarnation_dials_ahead_of_need() {
    let nodes = [node(1, done), node(2, done), node(3, done)];
    list_each_other(&nodes.each_ref());
    eventually("all pairs", || {
        nodes.iter().all(|node| nodes.iter().all(|other| node.listens == other.listens || node.is_linked(&other.peer)))
    })
    .await;
    let made: Vec<_> = nodes.iter().map(|node| count(&node.links.stats().links_made)).collect();
    assert_eq!(made, [2, 2, 2], "one link a pair");
    eventually("every address to be known good", || {
        nodes.iter().all(|node| node.links.status().iter().all(|status| status.dialable == Some(true)))
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_hundred_who_ask_at_once_share_one_dial() {
    let (a, b) = (node(2, done), node(1, done));
    a.join();
    b.join();
    let asks = (0..100).map(|n| a.ask(&b.peer, push(n, "hi")));
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Response::Done)));
    assert_eq!(count(&a.links.stats().links_made), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn crossed_dials_end_with_the_link_of_the_smaller() {
    for _ in 0..20 {
        let (a, b) = (node(1, done), node(2, done));
        a.join();
        b.join();
        let (forth, back) = tokio::join!(a.ask(&b.peer, push(1, "there")), b.ask(&a.peer, push(1, "back")));
        assert_eq!((forth, back), (Ok(Response::Done), Ok(Response::Done)));
        let lines = |node: &Node| node.links.table.lock().count_lines();
        eventually("one link to be left", || lines(&a) == 1 && lines(&b) == 1).await;
        if count(&a.links.stats().links_made) == 2 {
            let line = a.links.line(b.peer.incarnation).unwrap();
            assert!(line.dialled_here, "the smaller incarnation has dialled it");
            assert!(!b.links.line(a.peer.incarnation).unwrap().dialled_here);
        }
        assert_eq!(count(&a.links.stats().links_lost) + count(&b.links.stats().links_lost), 0);
        assert_eq!(a.ask(&b.peer, push(2, "there")).await, Ok(Response::Done));
        assert_eq!(b.ask(&a.peer, push(2, "back")).await, Ok(Response::Done));
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn a_link_that_loses_closes_only_when_what_it_was_asked_is_answered() {
    let (release, released) = tokio::sync::watch::channel(false);
    let a = node(1, move |_| {
        let mut released = released.clone();
        Served::Later(Box::pin(async move {
            let _open = released.wait_for(|is| *is).await;
            Response::Done
        }))
    });
    let b = node(2, done);
    a.join();
    b.join();
    // The larger dials, and waits for an answer, when the smaller one's link comes.
    let crossed = async {
        eventually("the request to arrive", || a.recorder.asked().len() == 1).await;
        a.links.force_dial(&b.peer);
        eventually("the second link", || b.links.table.lock().count_lines() == 2).await;
        eventually("the winner in use", || b.links.line(a.peer.incarnation).is_some_and(|line| !line.dialled_here))
            .await;
        assert_eq!(b.links.table.lock().count_lines(), 2, "the loser is still there");
        release.send(true).unwrap();
    };
    let (answer, ()) = tokio::join!(b.ask(&a.peer, push(1, "hi")), crossed);
    assert_eq!(answer, Ok(Response::Done));
    eventually("the loser to close", || b.links.table.lock().count_lines() == 1).await;
    assert_eq!(count(&b.links.stats().links_lost), 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_link_that_was_cut_comes_back() {
    let b = node(2, done);
    let net = Net::start(b.listens);
    let a = node(1, done);
    let through = behind(&b, &net);
    a.links.peers(&a.peer, std::slice::from_ref(&through));
    b.links.peers(&Peer { info: through.info.clone(), ..b.peer.clone() }, std::slice::from_ref(&a.peer));
    eventually("a link", || a.is_linked(&through)).await;
    net.cut();
    eventually("the loss", || !a.is_linked(&through) && !b.is_linked(&a.peer)).await;
    eventually("attempts", || count(&a.links.stats().dials_failed) >= 3).await;
    assert_eq!(a.status_of(&through).dialable, Some(false));
    assert!(!a.links.probe(&through).await);
    net.restore();
    eventually("a link again", || a.is_linked(&through)).await;
    assert_eq!(a.ask(&through, push(1, "hi")).await, Ok(Response::Done));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn the_larger_dials_when_the_smaller_cannot() {
    let (a, b) = (node(1, done), node(2, done));
    a.links.peers(&a.peer, &[peer(2, NOBODY)]);
    b.links.peers(&b.peer, std::slice::from_ref(&a.peer));
    eventually("a link", || a.is_linked(&b.peer) && b.is_linked(&a.peer)).await;
    assert_eq!(a.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_frozen_link_is_dead_after_a_while_and_a_delayed_one_is_not() {
    let b = node(2, silent);
    let net = Net::start(b.listens);
    let a = node(1, done);
    let through = behind(&b, &net);
    a.join();
    b.join();
    net.delay(Duration::from_millis(100));
    assert!(a.links.probe(&through).await, "slow is not dead");
    let frozen = async {
        eventually("the request to arrive", || b.recorder.asked().len() == 1).await;
        net.freeze();
        // Neither the link nor a new connection answers.
        assert!(!a.links.probe(&through).await);
    };
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(a.ask(&through, push(1, "hi")), frozen);
    assert!(matches!(&answer, Err(LinkError::Unanswered(why)) if why.contains("nothing was heard")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(count(&a.links.stats().links_lost), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_silent_link_stays() {
    let (a, b) = (node(1, done), node(2, done));
    list_each_other(&[&a, &b]);
    eventually("a link", || a.is_linked(&b.peer) && b.is_linked(&a.peer)).await;
    let line = a.links.line(b.peer.incarnation).unwrap();
    // Longer than silence may last; what passes meanwhile is pings.
    let before = count(&a.links.stats().bytes_in);
    eventually("pings", || count(&a.links.stats().bytes_in) >= before + 6 * frame::HEADER_BYTES as u64).await;
    let begun = Instant::now();
    eventually("time to pass", || begun.elapsed() > wire::SILENCE + Duration::from_secs(1)).await;
    assert!(a.links.has(&line));
    assert_eq!(count(&a.links.stats().links_lost) + count(&b.links.stats().links_lost), 0);
    assert!(a.links.probe(&b.peer).await);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_no_longer_listed_is_let_go_once_it_is_answered() {
    let (release, released) = tokio::sync::watch::channel(false);
    let b = node(2, move |_| {
        let mut released = released.clone();
        Served::Later(Box::pin(async move {
            let _open = released.wait_for(|is| *is).await;
            Response::Done
        }))
    });
    let a = node(1, done);
    list_each_other(&[&a, &b]);
    let leave = async {
        eventually("the request to arrive", || b.recorder.asked().len() == 1).await;
        a.links.peers(&a.peer, &[]);
        b.links.peers(&b.peer, &[]);
        assert!(a.links.line(b.peer.incarnation).is_none());
        release.send(true).unwrap();
    };
    let (answer, ()) = tokio::join!(a.ask(&b.peer, push(1, "hi")), leave);
    assert_eq!(answer, Ok(Response::Done));
    eventually("nothing to be left", || a.links.status().is_empty() && b.links.status().is_empty()).await;
    eventually("the connection to close", || {
        a.links.table.lock().count_lines() + b.links.table.lock().count_lines() == 0
    })
    .await;
    assert_eq!(count(&a.links.stats().links_lost) + count(&b.links.stats().links_lost), 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_new_incarnation_ends_all_links_and_makes_new_ones() {
    let (mut a, b) = (node(1, done), node(2, silent));
    list_each_other(&[&a, &b]);
    let renew = async {
        eventually("the request to arrive", || b.recorder.asked().len() == 1).await;
        let renewed = Peer { incarnation: Incarnation::new(5), ..a.peer.clone() };
        a.links.peers(&renewed, std::slice::from_ref(&b.peer));
        renewed
    };
    let (answer, renewed) = tokio::join!(a.ask(&b.peer, push(1, "hi")), renew);
    assert!(matches!(&answer, Err(LinkError::Unanswered(why)) if why.contains("another incarnation")), "{answer:?}");
    b.links.peers(&b.peer, std::slice::from_ref(&renewed));
    eventually("a link to the new one", || b.is_linked(&renewed)).await;
    assert_eq!(b.ask(&renewed, push(2, "hi")).await, Ok(Response::Done));
    let answer = b.ask(&a.peer, push(3, "hi")).await;
    assert_eq!(answer, Err(LinkError::NotSent("another start of the node answers there".to_owned())));
    a.peer = renewed;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_address_nobody_can_reach_is_said_on_both_sides() {
    let log = Log::start();
    let (a, b) = (node(1, done), node(2, done));
    let nobody = NOBODY.to_owned();
    let astray = peer(1, &nobody);
    a.links.peers(&astray, std::slice::from_ref(&b.peer));
    b.links.peers(&b.peer, std::slice::from_ref(&astray));
    eventually("b to find out", || {
        b.links.status().iter().any(|status| status.connected && status.dialable == Some(false))
    })
    .await;
    eventually("a to be told", || count(&a.links.stats().told_unreachable) == 1).await;
    assert_eq!(count(&b.links.stats().peers_unreachable), 1);
    let own = ["WARN", "another node cannot reach this one", "--node-address", "Connection refused", nobody.as_str()];
    eventually("a's line", || log.lines(&own) == 1).await;
    assert_eq!(
        log.lines(&["WARN", "a node advertises an address", "--node-address", "Connection refused", &nobody]),
        1
    );
    assert_eq!(b.ask(&astray, push(1, "hi")).await, Ok(Response::Done), "the link works all the same");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn everything_ends_with_the_token() {
    let (a, b) = (node(1, silent), node(2, silent));
    list_each_other(&[&a, &b]);
    let stop = async {
        eventually("the request to arrive", || b.recorder.asked().len() == 1).await;
        a.tasks.token().cancel();
    };
    let (answer, ()) = tokio::join!(a.ask(&b.peer, push(1, "hi")), stop);
    assert!(matches!(answer, Err(LinkError::Unanswered(_))), "{answer:?}");
    let answer = a.ask(&b.peer, push(2, "hi")).await;
    assert_eq!(answer, Err(LinkError::NotSent("this node is ending".to_owned())));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_and_cuts_an_answer_means_once_and_not_sent_means_never() {
    const ASKERS: u32 = 24;
    const CUTS: u64 = 6;
    let b = node(2, done);
    let net = Net::start(b.listens);
    let a = node(1, done);
    let through = behind(&b, &net);
    a.links.peers(&a.peer, std::slice::from_ref(&through));
    b.links.peers(&b.peer, std::slice::from_ref(&a.peer));
    eventually("a link", || a.is_linked(&through)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let askers = Tasks::new();
    for asker in 0..ASKERS {
        let (links, to, stop, outcomes) = (Arc::clone(&a.links), through.clone(), stop.clone(), Arc::clone(&outcomes));
        askers.spawn("asker", async move {
            let mut n = asker << 16;
            while !stop.is_cancelled() {
                let answer = links.ask(&to, push(n, vec![b'x'; 700]), LONG).await;
                let is_refused = answer.is_err();
                outcomes.lock().push((n, answer));
                n += 1;
                if is_refused {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    for cut in 1..=CUTS {
        let before = b.recorder.asked.lock().len();
        eventually("traffic", || b.recorder.asked.lock().len() > before + 500).await;
        net.cut();
        eventually("the loss", || count(&a.links.stats().links_lost) >= cut).await;
        net.restore();
        eventually("a link again", || a.is_linked(&through)).await;
    }
    stop.cancel();
    assert_eq!(askers.drain(PATIENCE).await, 0);
    // What was read of a lost link may still be on its way through the server.
    eventually("the server to be done", || b.links.table.lock().count_lines() <= 1).await;
    let mut served = std::collections::HashMap::new();
    for request in b.recorder.asked() {
        let Request::Push { id, .. } = request else { panic!("{request:?}") };
        *served.entry(id.slot()).or_insert(0) += 1;
    }
    let outcomes = std::mem::take(&mut *outcomes.lock());
    for (n, answer) in &outcomes {
        let times = served.get(n).copied().unwrap_or_default();
        match answer {
            Ok(Response::Done) => assert_eq!(times, 1, "{n}: answered"),
            Err(LinkError::NotSent(why)) => assert_eq!(times, 0, "{n}: not sent, {why}"),
            Err(LinkError::Unanswered(_)) => assert!(times <= 1, "{n}: unanswered"),
            Ok(other) => panic!("{n}: {other:?}"),
        }
    }
    assert!(outcomes.iter().any(|(_, answer)| matches!(answer, Err(LinkError::Unanswered(_)))));
    assert!(outcomes.iter().any(|(_, answer)| matches!(answer, Err(LinkError::NotSent(_)))));
    a.stop().await;
    b.stop().await;
}

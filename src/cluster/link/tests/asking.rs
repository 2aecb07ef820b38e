//! Requests and answers: order, batches, deadlines, bounds.

use super::net::Net;
use super::*;
use crate::cluster::transport::{Described, Row};
use crate::cluster::{Delivered, GroupName};
use crate::ids::StageName;

#[tokio::test]
async fn every_request_is_answered_by_its_owner() {
    let api = ApiId::parse("chat").unwrap();
    let group = GroupName::new(&api, "räume/1").unwrap();
    let described = Described {
        connected_at: EpochMillis(5),
        last_active_at: EpochMillis(6),
        source_ip: [192, 0, 2, 7].into(),
        user_agent: Some("curl".into()),
    };
    let row = Row {
        id: connection(4),
        api: api.clone(),
        stage: StageName::parse("dev").unwrap(),
        described: described.clone(),
        outbox_bytes: 9,
    };
    let id = connection(4);
    let (kind, payload) = (Kind::Binary, Bytes::from_static(&[0, 255]));
    let dialogue = [
        (push(1, "hi"), Response::Done),
        (push(2, "hi"), Response::Gone),
        (push(3, "hi"), Response::Full),
        (push(5, "hi"), Response::TooLarge),
        (push(6, "hi"), Response::Busy),
        (Request::Describe { id, api: Some(api.clone()) }, Response::Described(described)),
        (Request::Close { id, api: None }, Response::Done),
        (Request::Join { id, group: group.clone() }, Response::TooManyGroups),
        (Request::Leave { id, group: group.clone() }, Response::Done),
        (
            Request::SendToGroup { group: group.clone(), kind, payload: payload.clone(), except: Some(id) },
            Response::Delivered(Delivered { delivered: 1, dropped: 2, gone: 3, unreachable: 0 }),
        ),
        (Request::SendToAll { api: api.clone(), kind, payload }, Response::Delivered(Delivered::default())),
        (Request::Members { group, after: Some(id), limit: 10 }, Response::Ids(vec![connection(5), connection(6)])),
        (
            Request::List { api: Some(api), stage: None, after: None, limit: 3 },
            Response::Rows { rows: vec![row], open: 77 },
        ),
    ];
    let answers = dialogue.clone();
    let b = node(2, move |request| {
        let (_, answer) = answers.iter().find(|(asked, _)| asked == request).unwrap().clone();
        match request {
            Request::SendToGroup { .. } | Request::SendToAll { .. } => Served::Later(Box::pin(async { answer })),
            Request::Push { .. }
            | Request::Describe { .. }
            | Request::Close { .. }
            | Request::Join { .. }
            | Request::Leave { .. }
            | Request::Members { .. }
            | Request::List { .. } => Served::Now(answer),
        }
    });
    let a = node(1, done);
    list_each_other(&[&a, &b]);
    for (request, answer) in &dialogue {
        assert_eq!(a.ask(&b.peer, request.clone()).await, Ok(answer.clone()), "{request:?}");
    }
    let asked: Vec<_> = dialogue.iter().map(|(request, _)| request.clone()).collect();
    assert_eq!(b.recorder.asked(), asked, "in order, each once");
    assert_eq!(count(&a.links.stats().answered), 13);
    assert_eq!(count(&b.links.stats().served), 13);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_answered_and_each_askers_order_is_kept() {
    const ASKERS: u32 = 200;
    const EACH: u32 = 50;
    let (a, b) = (node(1, done), node(2, done));
    list_each_other(&[&a, &b]);
    let askers = Tasks::new();
    for asker in 0..ASKERS {
        let (links, to) = (Arc::clone(&a.links), b.peer.clone());
        askers.spawn("asker", async move {
            for n in 0..EACH {
                let payload = vec![b'x'; 1 + (asker * 7 + n) as usize % 3_000];
                assert_eq!(links.ask(&to, push(asker * EACH + n, payload), LONG).await, Ok(Response::Done));
            }
        });
    }
    assert_eq!(askers.drain(PATIENCE).await, 0);
    let mut next = vec![0; ASKERS as usize];
    for request in b.recorder.asked() {
        let Request::Push { id, .. } = request else { panic!("{request:?}") };
        let (asker, n) = (id.slot() / EACH, id.slot() % EACH);
        assert_eq!(next[asker as usize], n, "asker {asker}");
        next[asker as usize] += 1;
    }
    assert!(next.iter().all(|n| *n == EACH));
    let status = a.status_of(&b.peer);
    assert_eq!((status.unanswered, status.queued_bytes), (0, 0));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn both_ask_each_other_over_one_link() {
    let (a, b) = (node(1, done), node(2, done));
    list_each_other(&[&a, &b]);
    eventually("a link", || a.is_linked(&b.peer) && b.is_linked(&a.peer)).await;
    for n in 0..20 {
        let (forth, back) = tokio::join!(a.ask(&b.peer, push(n, "there")), b.ask(&a.peer, push(n, "back")));
        assert_eq!((forth, back), (Ok(Response::Done), Ok(Response::Done)));
    }
    assert_eq!(count(&a.links.stats().links_made), 1);
    assert_eq!(count(&b.links.stats().links_made), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn the_largest_message_travels_and_a_larger_one_is_too_large() {
    let (a, b) = (node(1, done), node(2, done));
    list_each_other(&[&a, &b]);
    let largest = Bytes::from(vec![b'x'; frame::MAX_MESSAGE_BYTES]);
    assert_eq!(a.ask(&b.peer, push(1, largest.clone())).await, Ok(Response::Done));
    assert_eq!(b.recorder.asked(), [push(1, largest)]);
    let larger = Bytes::from(vec![b'x'; frame::MAX_PAYLOAD_BYTES + 1]);
    assert_eq!(a.ask(&b.peer, push(2, larger)).await, Ok(Response::TooLarge));
    assert_eq!(b.recorder.asked().len(), 1);
    assert_eq!(a.ask(&b.peer, push(3, "and on")).await, Ok(Response::Done));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_ask_never_outlives_its_deadline() {
    let (a, b) = (node(1, done), node(2, silent));
    list_each_other(&[&a, &b]);
    let begun = Instant::now();
    let answer = a.links.ask(&b.peer, push(1, "hi"), Duration::from_millis(120)).await;
    assert_eq!(answer, Err(LinkError::Unanswered("the deadline has passed".to_owned())));
    assert!(begun.elapsed() >= Duration::from_millis(120) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(a.status_of(&b.peer).unanswered, 0, "its place is free again");
    assert_eq!(count(&a.links.stats().unanswered), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_request_nobody_waits_for_any_more_frees_its_place() {
    let (a, b) = (node(1, done), node(2, silent));
    list_each_other(&[&a, &b]);
    {
        let mut ask = a.links.ask(&b.peer, push(1, "hi"), LONG);
        within("the request to arrive", async {
            tokio::select! {
                answer = &mut ask => panic!("{answer:?}"),
                () = eventually("arrival", || b.recorder.asked().len() == 1) => {}
            }
        })
        .await;
        assert_eq!(a.status_of(&b.peer).unanswered, 1);
    }
    assert_eq!(a.status_of(&b.peer).unanswered, 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_midway_is_unanswered_and_one_that_refuses_is_not_sent() {
    let b = node(2, silent);
    let net = Net::start(b.listens);
    let a = node(1, done);
    a.join();
    b.join();
    let through = peer(2, &net.address().to_string());
    let cut = async {
        eventually("the request to arrive", || b.recorder.asked().len() == 1).await;
        net.cut();
    };
    let (answer, ()) = tokio::join!(a.ask(&through, push(1, "hi")), cut);
    assert!(matches!(&answer, Err(LinkError::Unanswered(why)) if why.contains("lost")), "{answer:?}");
    let answer = a.ask(&through, push(2, "hi")).await;
    assert!(matches!(answer, Err(LinkError::NotSent(_))), "{answer:?}");

    let answer = a.ask(&peer(3, NOBODY), push(3, "hi")).await;
    assert!(matches!(&answer, Err(LinkError::NotSent(why)) if why.contains("refused")), "{answer:?}");
    let answer = a.ask(&peer(4, "no address"), push(4, "hi")).await;
    assert!(matches!(&answer, Err(LinkError::NotSent(why)) if why.contains("host:port")), "{answer:?}");
    assert_eq!(b.recorder.asked(), [push(1, "hi")], "nothing is sent again");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn no_connection_within_the_deadline_is_not_sent() {
    let b = node(2, done);
    let net = Net::start(b.listens);
    net.freeze();
    let a = node(1, done);
    a.join();
    b.join();
    let through = peer(2, &net.address().to_string());
    let answer = a.links.ask(&through, push(1, "hi"), Duration::from_millis(100)).await;
    assert_eq!(answer, Err(LinkError::NotSent("no connection within the deadline".to_owned())));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_full_queue_takes_no_more() {
    let b = node(2, |request| if *request == push(0, "hi") { done(request) } else { silent(request) });
    let net = Net::start(b.listens);
    let a = node(1, done);
    a.join();
    b.join();
    let through = peer(2, &net.address().to_string());
    // The link is made by a first request; what follows stays on this side of a frozen network.
    assert_eq!(a.ask(&through, push(0, "hi")).await, Ok(Response::Done));
    net.freeze();
    let piece = Bytes::from(vec![b'x'; 16 << 20]);
    let asks = (1..12).map(|n| a.links.ask(&through, push(n, piece.clone()), Duration::from_millis(500)));
    let asked = futures_util::future::join_all(asks);
    let answers = within("all answers", asked).await;
    let full = LinkError::NotSent("the link's queue is full".to_owned());
    let refused = answers.iter().filter(|answer| answer.as_ref() == Err(&full)).count();
    // Four times 16 MiB less what their frames add, and what had left the queue before the network's room was used up.
    assert!((5..=8).contains(&refused), "{answers:?}");
    assert!(a.status_of(&through).queued_bytes <= line::MAX_QUEUED_BYTES);
    net.restore();
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn so_many_requests_may_be_unanswered_and_no_more() {
    let (a, b) = (node(1, done), node(2, silent));
    list_each_other(&[&a, &b]);
    eventually("a link", || a.is_linked(&b.peer)).await;
    let asks = (0..line::MAX_UNANSWERED as u32 + 3).map(|n| {
        let (links, to) = (Arc::clone(&a.links), b.peer.clone());
        async move { links.ask(&to, push(n, "hi"), Duration::from_secs(3)).await }
    });
    let answers = within("all answers", futures_util::future::join_all(asks)).await;
    let full = LinkError::NotSent("the link's queue is full".to_owned());
    let not_sent = answers.iter().filter(|answer| answer.as_ref() == Err(&full)).count();
    let busy = answers.iter().filter(|answer| **answer == Ok(Response::Busy)).count();
    assert_eq!(not_sent, 3, "the queue has an end");
    // The owner serves so many that take longer; the others are told at once.
    assert_eq!(busy, line::MAX_UNANSWERED - wire::MAX_LATER);
    assert_eq!(count(&b.links.stats().turned_away), busy as u64);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_request_that_has_waited_too_long_at_its_owner_is_not_done() {
    let b = node(2, |request| {
        if matches!(request, Request::Push { id, .. } if id.slot() == 0) {
            // Holds up the link's own thread, as a node does that has too much to do.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(150) {
                std::hint::spin_loop();
            }
        }
        done(request)
    });
    let a = node(1, done);
    list_each_other(&[&a, &b]);
    assert_eq!(a.ask(&b.peer, push(7, "the link is there")).await, Ok(Response::Done));
    let (first, late, patient) = tokio::join!(
        a.links.ask(&b.peer, push(0, "slow"), LONG),
        a.links.ask(&b.peer, push(1, "late"), Duration::from_millis(40)),
        a.links.ask(&b.peer, push(2, "patient"), LONG),
    );
    assert_eq!((first, patient), (Ok(Response::Done), Ok(Response::Done)));
    assert!(late.is_err() || late == Ok(Response::Busy), "{late:?}");
    assert_eq!(b.recorder.asked(), [push(7, "the link is there"), push(0, "slow"), push(2, "patient")]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_panic_while_serving_ends_the_link_and_nothing_else() {
    let b = node(2, |request| {
        assert!(!matches!(request, Request::Push { id, .. } if id.slot() == 0), "on purpose");
        done(request)
    });
    let (a, c) = (node(1, done), node(3, done));
    list_each_other(&[&a, &b, &c]);
    let answer = a.ask(&b.peer, push(0, "hi")).await;
    assert!(matches!(answer, Err(LinkError::Unanswered(_))), "{answer:?}");
    assert_eq!(c.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));
    within("a new link", async { while a.links.ask(&b.peer, push(2, "hi"), LONG).await != Ok(Response::Done) {} })
        .await;
    a.stop().await;
    b.stop().await;
    c.stop().await;
}

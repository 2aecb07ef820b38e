//! Out of open files, and out of memory for slow readers: newcomers and the slow pay, nobody else.

use crate::support::{Client, Process, Routes, Said, call, plain_api, push};

#[tokio::test(flavor = "multi_thread")]
async fn without_open_files_newcomers_get_503_and_everybody_else_goes_on() {
    let routes = Routes::new(&plain_api("help"));
    let more = ["--reserved-files", "64", "--shards", "1", "--workers", "2"];
    let mut process = Process::run_with_files(128, routes.path(), &more).await;
    let mut clients = Vec::new();
    let refused = loop {
        match Client::try_connect(process.public).await {
            Ok(client) => clients.push(client),
            Err(refused) => break refused,
        }
        assert!(clients.len() <= 128, "more sessions than files");
    };
    assert_eq!(refused.status, 503, "{}", refused.why);
    assert!(clients.len() > 32, "only {} sessions", clients.len());
    // However many knock, those who are in are served, and pushes come through.
    for _ in 0..50 {
        let refused = Client::try_connect(process.public).await.err().expect("no room");
        assert_eq!(refused.status, 503, "{}", refused.why);
    }
    for client in &mut clients {
        assert_eq!(client.ask("anything").await, "help");
    }
    let last = clients.last_mut().unwrap();
    let id = last.id().await;
    let pushed = push(process.public, &id, "through").await;
    assert_eq!(pushed.status, 200, "{pushed:?}");
    assert_eq!(last.next().await, Said::Text("through".into()));
    assert_eq!(call(process.admin, "GET", "/health", &[], b"").await.status, 200);
    assert!(process.is_running());

    // Half of them leave: there is room again.
    let rest = clients.split_off(clients.len() / 2);
    clients.into_iter().for_each(Client::vanish);
    let started = std::time::Instant::now();
    let mut back = loop {
        match Client::try_connect(process.public).await {
            Ok(client) => break client,
            Err(refused) => assert!(started.elapsed() < crate::support::PATIENCE, "{}", refused.why),
        }
    };
    assert_eq!(back.ask("anything").await, "help");
    drop((rest, back));
    process.stop().await;
}

/// Bytes that wait for one connection's client, as the operator sees them; `None` when it is gone.
async fn outbox_bytes(process: &Process, id: &str) -> Option<u64> {
    let listed = call(process.admin, "GET", "/connections", &[], b"").await;
    let listed: serde_json::Value = serde_json::from_str(&listed.body).unwrap();
    let rows = listed["connections"].as_array().unwrap();
    rows.iter().find(|row| row["connectionId"] == id)?["outboxBytes"].as_u64()
}

/// A budget used up by one slow reader meets others in the middle of a message: sent whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_budget_never_cuts_a_message_short() {
    // The hog stops short of the budget by its own limit, so nobody presses until the others come.
    let routes = Routes::new(&plain_api("help").replace("dev: {}", "dev: {limits: {maxOutboxBytes: 1000000}}"));
    let more = ["--outbox-budget-bytes", "1MiB", "--shards", "1", "--access-log", "off"];
    let process = Process::run(routes.path(), &more).await;
    let message = "m".repeat(100_000);
    let mut hog = Client::connect(process.public).await;
    let hog_id = hog.id().await;
    while push(process.public, &hog_id, &message).await.status == 200 {}
    assert!(outbox_bytes(&process, &hog_id).await.is_some_and(|bytes| bytes > 800_000), "it holds too little");

    let mut readers = Vec::new();
    // Each is pushed to until its socket is full, which leaves part of a message waiting: so much less budget for the
    // next, until there is not enough for one of them.
    while outbox_bytes(&process, &hog_id).await.is_some() {
        assert!(readers.len() < 100, "the budget is never used up");
        let mut reader = Client::connect(process.public).await;
        let id = reader.id().await;
        let mut taken = 0;
        let refused = loop {
            match push(process.public, &id, &message).await.status {
                200 => taken += 1,
                429 => break true,
                status => panic!("{status}"),
            }
            if outbox_bytes(&process, &id).await != Some(0) {
                break false;
            }
        };
        readers.push((reader, id, taken));
        if refused {
            break;
        }
    }
    // Relief has cost the hog its session; the others' streams are whole.
    for (mut reader, id, taken) in readers {
        for n in 0..taken {
            let said = reader.next().await;
            assert!(said == Said::Text(message.clone()), "{n} of {taken}");
        }
        assert_eq!(push(process.public, &id, "the last one").await.status, 200);
        assert_eq!(reader.next().await, Said::Text("the last one".into()));
    }
    process.stop().await;
}

/// The same without a plan: whatever the budget does to slow readers, what they get is well formed up to its end.
#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_lose_pushes_or_their_session_but_never_half_a_message() {
    let routes = Routes::new(&plain_api("help"));
    let more = ["--outbox-budget-bytes", "1MiB", "--shards", "1", "--access-log", "off"];
    let process = Process::run(routes.path(), &more).await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(process.public).await;
        let id = client.id().await;
        readers.push((client, id));
    }
    let message = "m".repeat(100_000);
    let mut open = vec![true; readers.len()];
    let mut refused = 0;
    for _ in 0..200 {
        for ((_, id), open) in readers.iter().zip(&mut open).filter(|(_, open)| **open) {
            match push(process.public, id, &message).await.status {
                200 => {}
                429 => refused += 1,
                410 => *open = false,
                status => panic!("{status}"),
            }
        }
    }
    assert!(refused > 0 || open.contains(&false), "the budget was never used up");
    // The client panics over anything that is not a message.
    for (mut client, _) in readers {
        client.send("anything").await;
        loop {
            match client.next().await {
                Said::Text(text) if text == "help" => break,
                Said::Text(text) => assert!(text == message, "{} bytes of something else", text.len()),
                Said::Close(_) | Said::Gone => break,
            }
        }
    }
    assert_eq!(Client::connect(process.public).await.ask("anything").await, "help");
    process.stop().await;
}

//! A bare hyper client: the least that a proxied message can cost, since the gateway makes the same POST.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use crate::load::{self, ANSWER};

type Posting = Client<HttpConnector, Full<Bytes>>;

/// Reads a number of milliseconds per line, posts for that long with `in_flight` at once, and prints how many were answered.
pub async fn run(to: Uri, in_flight: usize) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Posting = Client::builder(TokioExecutor::new()).build(connector);
    let body = Bytes::from(load::message("proxy", ""));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let until = Instant::now() + Duration::from_millis(order.trim().parse()?);
        let mut loops = JoinSet::new();
        for _ in 0..in_flight {
            loops.spawn(keep_posting(client.clone(), to.clone(), body.clone(), until));
        }
        let mut answered = 0;
        while let Some(done) = loops.join_next().await {
            answered += done??;
        }
        println!("{answered}");
    }
    Ok(())
}

async fn keep_posting(client: Posting, to: Uri, body: Bytes, until: Instant) -> Result<u64> {
    let mut answered = 0;
    while Instant::now() < until {
        let request = Request::post(to.clone())
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let response = client.request(request).await.context("the back-end did not answer")?;
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(answer == ANSWER, "the back-end answered something else");
        answered += 1;
    }
    Ok(answered)
}

//! `causeway connections`.

use std::collections::BTreeSet;
use std::io::Read as _;

use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::desk::{Desk, Failed, rows, run, text};
use super::{Exit, complain, print};
use crate::config::{ConnectionsArgs, ConnectionsCommand};
use crate::ids::{ApiId, StageName};

/// Looks at and acts on the connections of a running gateway.
pub fn connections(args: &ConnectionsArgs) -> Exit {
    run(act(args))
}

async fn act(args: &ConnectionsArgs) -> Result<(), Failed> {
    let desk = Desk::new(&args.admin)?;
    let path = |id: &str| format!("/connections/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    match &args.command {
        ConnectionsCommand::List { api, stage } => list(&desk, api.as_deref(), stage.as_deref()).await,
        ConnectionsCommand::Get { id } => {
            let told = desk.call(Method::GET, &path(id), Bytes::new()).await?;
            print(&String::from_utf8_lossy(&told));
            Ok(())
        }
        ConnectionsCommand::Send { id, message } => {
            let body = if let Some(message) = message {
                Bytes::from(message.clone())
            } else {
                let mut text = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut text)
                    .map_err(|error| (Exit::Bad, format!("standard input cannot be read: {error}")))?;
                Bytes::from(text)
            };
            desk.call(Method::POST, &path(id), body).await.map(drop)
        }
        ConnectionsCommand::Close { id } => desk.call(Method::DELETE, &path(id), Bytes::new()).await.map(drop),
    }
}

/// Prints the connections of all nodes, page by page. Nodes that did not answer are said at the end, on standard error:
/// what is listed is true, and not all.
async fn list(desk: &Desk, api: Option<&str>, stage: Option<&str>) -> Result<(), Failed> {
    let malformed =
        |flag: &str, text: &str| Err((Exit::Bad, format!("--{flag} is `{}`, which names none", text.escape_debug())));
    if let Some(text) = api.filter(|text| ApiId::parse(text).is_err()) {
        return malformed("api", text);
    }
    if let Some(text) = stage.filter(|text| StageName::parse(text).is_err()) {
        return malformed("stage", text);
    }
    let mut silent = BTreeSet::new();
    let mut after = None::<String>;
    let mut is_first = true;
    loop {
        let given = [("api", api), ("stage", stage), ("after", after.as_deref())];
        let query: Vec<String> = given
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", utf8_percent_encode((*value)?, NON_ALPHANUMERIC))))
            .collect();
        let page = desk.ask(Method::GET, &format!("/connections?{}", query.join("&"))).await?;
        if is_first {
            print(
                "CONNECTION        API/STAGE             SOURCE                CONNECTED                 LAST ACTIVE",
            );
        }
        is_first = false;
        for row in rows(&page, "connections") {
            print(&format!(
                "{:<17} {:<21} {:<21} {:<25} {}",
                text(row, "connectionId"),
                format!("{}/{}", text(row, "apiId"), text(row, "stage")),
                text(row, "sourceIp"),
                text(row, "connectedAt"),
                text(row, "lastActiveAt"),
            ));
        }
        silent.extend(rows(&page, "unreachable").filter_map(Value::as_str).map(str::to_owned));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    for node in silent {
        complain(&format!("the node at {node} did not answer: connections of its are missing here"));
    }
    Ok(())
}

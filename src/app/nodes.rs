//! `causeway nodes`.

use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::desk::{Desk, Failed, rows, run, text};
use super::{Exit, print};
use crate::config::{NodesArgs, NodesCommand};

/// Looks at and acts on the nodes of a cluster.
pub fn nodes(args: &NodesArgs) -> Exit {
    run(act(args))
}

async fn act(args: &NodesArgs) -> Result<(), Failed> {
    let desk = Desk::new(&args.admin)?;
    match &args.command {
        NodesCommand::List => {
            let answer = desk.ask(Method::GET, "/nodes").await?;
            print(&table(&answer));
        }
        NodesCommand::Shed { percent, rate } => {
            let answer = desk.ask(Method::POST, &format!("/nodes/shed?percent={percent}&rate={rate}")).await?;
            let sessions = answer.get("sessions").and_then(Value::as_u64).unwrap_or_default();
            print(&format!("giving up {sessions} sessions, {rate} a second"));
        }
        NodesCommand::Bury { connection } => {
            let connection = utf8_percent_encode(connection, NON_ALPHANUMERIC);
            desk.call(Method::POST, &format!("/nodes/bury?connection={connection}"), Bytes::new()).await?;
            print("buried: every connection of that start of a node is gone");
        }
    }
    Ok(())
}

/// A row a node, the one that was asked first and marked with `*`; then how the registry is.
fn table(answer: &Value) -> String {
    let head = ["NODE", "ADDRESS", "INCARNATION", "VERSION", "STARTED", "STATE"].map(str::to_owned);
    let mut lines = vec![head];
    for row in rows(answer, "nodes") {
        let is_this = row.get("isThisNode").and_then(Value::as_bool).unwrap_or_default();
        let name = format!("{}{}", text(row, "name"), if is_this { " *" } else { "" });
        let rest =
            ["address", "incarnation", "version", "startedAt", "state"].map(|member| text(row, member).to_owned());
        let [address, incarnation, version, started, state] = rest;
        lines.push([name, address, incarnation, version, started, state]);
    }
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut shown = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let row = cells.collect::<Vec<_>>().join("  ");
        shown.push_str(row.trim_end());
        shown.push('\n');
    }
    let unwritten = answer.get("unwritten").and_then(Value::as_u64).unwrap_or_default();
    format!("{shown}registry: {}; changes not written yet: {unwritten}", text(answer, "registry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_node_and_a_line_for_the_registry() {
        let answer = serde_json::json!({
            "nodes": [
                {"name": "node-1", "address": "10.0.0.11:7400", "incarnation": "00000a", "version": "1.2.3",
                 "startedAt": "2026-11-25T10:00:00.000Z", "isThisNode": true, "state": "up"},
                {"name": "b", "address": "10.0.0.12:7400", "incarnation": null, "version": "1.2.3",
                 "startedAt": "2026-11-25T10:00:01.000Z", "isThisNode": false, "state": "late"},
            ],
            "registry": "settled",
            "unwritten": 3,
        });
        assert_eq!(
            table(&answer),
            "NODE      ADDRESS         INCARNATION  VERSION  STARTED                   STATE\n\
             node-1 *  10.0.0.11:7400  00000a       1.2.3    2026-11-25T10:00:00.000Z  up\n\
             b         10.0.0.12:7400  -            1.2.3    2026-11-25T10:00:01.000Z  late\n\
             registry: settled; changes not written yet: 3"
        );
    }
}

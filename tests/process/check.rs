//! `causeway check`.

use std::fmt::Write as _;

use crate::support::{Routes, plain_api, run};

#[test]
fn good_definitions_are_counted() {
    let routes = Routes::new(&plain_api("help"));
    let ended = run(["check".as_ref(), routes.path().as_os_str()]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(ended.out, "ok: 1 API, 2 message routes\n");
}

#[test]
fn the_examples_of_the_repository_are_good() {
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/routes");
    let ended = run(["check", routes]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn twenty_mistakes_are_all_told_with_their_place() {
    let mut text =
        String::from("apiId: test\nprotocolType: WEBSOCKET\nrouteSelectionExpression: $request.body.action\n");
    text.push_str("stages:\n  dev: {}\nroutes:\n");
    for n in 0..20 {
        writeln!(text, "  r{n}:\n    integration: {{integrationType: MOKC{n}}}").unwrap();
    }
    let routes = Routes::new(&text);
    let ended = run(["check".as_ref(), routes.path().as_os_str()]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for n in 0..20 {
        let line = 8 + 2 * n;
        let place = format!("test.yaml:{line}:");
        assert!(ended.err.lines().any(|l| l.contains(&place)), "nothing about line {line}:\n{}", ended.err);
    }
    let places = ended.err.lines().filter(|line| line.contains("test.yaml:")).count();
    assert_eq!(places, 20, "{}", ended.err);
}

#[test]
fn the_route_table_is_printed_on_demand() {
    let routes = Routes::new(&plain_api("help"));
    let ended = run(["check".as_ref(), routes.path().as_os_str(), "--print".as_ref()]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let rows: Vec<Vec<&str>> = ended.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["API", "STAGE", "ROUTE", "INTEGRATION", "TWO-WAY", "ORDER"]);
    assert!(rows.contains(&vec!["test", "dev", "whoami", "MOCK", "yes", "parallel"]), "{}", ended.out);
    assert!(rows.contains(&vec!["test", "dev", "$default", "MOCK", "yes", "parallel"]), "{}", ended.out);
}

#[test]
fn the_schema_is_json_and_knows_the_words() {
    let ended = run(["check", "--schema"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let schema: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(schema["type"], "object");
    for word in ["apiId", "protocolType", "routeSelectionExpression", "stages", "routes"] {
        assert!(schema["properties"].get(word).is_some(), "{word}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let ended = run(["check", "/no/such/folder"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("/no/such/folder"), "{}", ended.err);
}

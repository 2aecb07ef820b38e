//! Definitions as files: the shipped ones, references, the schema, the route table.

use std::time::Duration;

use super::*;

fn shipped() -> Snapshot {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("routes");
    load(&folder, &empty_environment).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_schema_in_the_repository_is_the_generated_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/routes.schema.json");
    let generated = format!("{:#}\n", json_schema());
    #[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == generated,
        "{} is not what the code generates; write it anew with\n    UPDATE_SCHEMA=1 cargo test --lib schema_in_the_repository",
        path.display()
    );
}

#[test]
fn the_check_knows_every_keyword_of_the_schema() {
    assert_eq!(crate::document::unchecked(&json_schema()), [""; 0]);
}

#[test]
fn the_shipped_definitions_load() {
    let snapshot = shipped();
    let ids: Vec<&str> = snapshot.apis.iter().map(|api| api.id.as_str()).collect();
    assert_eq!(ids, ["chat", "orders"]);
    for api in &snapshot.apis {
        let stages: Vec<&str> = api.stages.keys().map(crate::ids::StageName::as_str).collect();
        assert_eq!(stages, ["dev", "prod"], "{}", api.id);
    }
    let orders = snapshot.api(&ApiId::parse("orders").unwrap()).unwrap();
    assert!(orders.connect.is_some() && orders.disconnect.is_some());
    assert!(snapshot.api(&ApiId::parse("shop").unwrap()).is_none());
}

#[test]
fn the_route_table_shows_each_route_of_each_stage() {
    let table = print_routes(&shipped());
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["API", "STAGE", "ROUTE", "INTEGRATION", "TWO-WAY", "ORDER"]);
    let row = |cells: [&str; 6]| rows.iter().any(|row| *row == cells);
    assert!(row(["chat", "dev", "say", "GROUP send", "no", "parallel"]), "{table}");
    assert!(row(["chat", "prod", "whoami", "MOCK", "yes", "parallel"]), "{table}");
    assert!(row(["orders", "dev", "$connect", "HTTP_PROXY POST", "no", "parallel"]), "{table}");
    assert!(row(["orders", "prod", "order", "HTTP_PROXY POST", "yes", "serial"]), "{table}");
    assert!(row(["orders", "prod", "status", "HTTP GET", "yes", "parallel"]), "{table}");
}

const SECRETIVE: &str = "
apiId: secretive
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev:
    stageVariables: {token: '${env:TOKEN}'}
routes:
  a:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://127.0.0.1/${env:TOKEN}
      requestParameters: {integration.request.header.Authorization: \"'${env:TOKEN}'\"}
";

fn token(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "hunter2".to_owned())
}

#[test]
fn what_references_yield_is_used_and_never_printed() {
    let snapshot = load_texts([("t.yaml", SECRETIVE)], &token).unwrap();
    let api = &snapshot.apis[0];
    let stage = api.stages.values().next().unwrap();
    assert_eq!(stage.variables["token"], "hunter2");
    let (_, route) = api.routes.iter().next().unwrap();
    let Some(Integration::Http(http)) = &route.integration else { panic!("{route:?}") };
    assert_eq!(http.uri, "http://127.0.0.1/hunter2");
    assert!(!print_routes(&snapshot).contains("hunter2"));
}

#[test]
fn what_references_yield_is_not_in_problems_either() {
    // Every text that is checked further, made wrong by what stands for the reference.
    let text = "
apiId: ${env:BAD}
protocolType: WEBSOCKET
routeSelectionExpression: ${env:BAD}
domains: [{domainName: '${env:BAD}', apiMappingKey: '${env:BAD}', stage: '${env:BAD}'}]
callbackOrigins: ['${env:BAD}']
stages:
  dev:
    stageVariables: {token: '${env:BAD}'}
    limits: {idleTimeout: '${env:BAD}', maxFrameBytes: '${env:BAD}'}
    accessLogSettings: {format: '${env:BAD}'}
routes:
  a:
    ordering: ${env:BAD}
    integration:
      integrationType: HTTP
      integrationUri: ${env:BAD}
      requestParameters: {integration.request.header.a: '${env:BAD}'}
      requestTemplates: {$default: '${env:BAD}'}
      templateSelectionExpression: ${env:BAD}
      integrationResponses:
        $default: {responseParameters: {route.response.header.a: '${env:BAD}'}}
  b: {integration: {integrationType: GROUP, groupAction: send, groupName: '${env:BAD}', message: '${env:BAD}'}}
";
    let bad = |_: &str| Some("#hunter2 ${ { $!".to_owned());
    let problems = load_texts([("t.yaml", text)], &bad).unwrap_err();
    assert!(problems.len() >= 10, "{problems}");
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

#[test]
fn a_folder_is_read_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let definition = |id: &str| {
        format!(
            "apiId: {id}\nprotocolType: WEBSOCKET\nrouteSelectionExpression: $request.body.a\n\
             stages: {{dev: {{stageVariables: {{key: '${{file:key}}'}}}}}}\nroutes: {{$default: {{}}}}\n"
        )
    };
    assert_eq!(
        load(folder.path(), &empty_environment).unwrap_err().to_string(),
        format!(
            "{}: no definition in this folder, expected a file `*.yaml`, `*.yml` or `*.json`",
            folder.path().display()
        )
    );
    write("key", "opensesame\n");
    write("b.yaml", &definition("b"));
    write("a.yml", &definition("c"));
    write(
        "c.json",
        "{\"apiId\": \"a\", \"protocolType\": \"WEBSOCKET\", \"routeSelectionExpression\": \"x\",\n\t\"stages\": {\"dev\": {}}, \"routes\": {\"$default\": {}}}",
    );
    write(".hidden.yaml", "nonsense");
    write("notes.txt", "nonsense");
    let snapshot = load(folder.path(), &empty_environment).unwrap();
    assert_eq!(snapshot.apis.iter().map(|api| api.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(snapshot.apis[1].stages.values().next().unwrap().variables["key"], "opensesame");

    let single = load(&folder.path().join("b.yaml"), &empty_environment).unwrap();
    assert_eq!(single.apis.len(), 1);
    let missing = load(&folder.path().join("none"), &empty_environment).unwrap_err();
    assert!(missing.to_string().contains("none: cannot be read: "), "{missing}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(crate::document::MAX_FILE_BYTES + 1).unwrap();
    let problems = load(&path, &empty_environment).unwrap_err();
    assert!(problems.to_string().ends_with("too large, expected at most 4194304 bytes"), "{problems}");
}

#[test]
fn the_fingerprint_changes_with_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    let mut seen = vec![fingerprint(folder.path())];
    std::fs::write(&path, "a").unwrap();
    seen.push(fingerprint(folder.path()));
    std::fs::write(&path, "ab").unwrap();
    seen.push(fingerprint(folder.path()));
    let file = std::fs::File::open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    seen.push(fingerprint(folder.path()));
    std::fs::rename(&path, folder.path().join("b.yaml")).unwrap();
    seen.push(fingerprint(folder.path()));
    seen.push(fingerprint(&path));
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), seen.len());
    assert_eq!(fingerprint(folder.path()), seen[4], "and only then");
    std::fs::write(folder.path().join("notes.txt"), "a").unwrap();
    assert_eq!(fingerprint(folder.path()), seen[4], "other files do not count");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, ..Default::default() })]

    // Whatever a shipped definition becomes by cuts and insertions, it loads or has problems in order of place.
    #[test]
    fn no_text_makes_the_loader_panic(
        at in 0.0..1.0_f64,
        cut in 0_usize..40,
        inserted in "[\\PC\n\t:\\[\\]{}&*!|>'\"#%@`,?<~$-]{0,12}",
    ) {
        const TEXT: &str = include_str!("../../routes/orders.yaml");
        let chars: Vec<char> = TEXT.chars().collect();
        let start = (at * chars.len() as f64) as usize;
        let rest = chars.get(start + cut..).unwrap_or_default();
        let text: String = chars[..start].iter().chain(&inserted.chars().collect::<Vec<_>>()).chain(rest).collect();
        if let Err(problems) = load_texts([("t.yaml", &*text)], &empty_environment) {
            proptest::prop_assert!(!problems.is_empty());
            proptest::prop_assert!(problems.iter().is_sorted());
        }
    }
}

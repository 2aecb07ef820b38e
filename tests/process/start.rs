//! First line, exit codes, and the states `run` refuses to start in.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::support::{Client, Process, Routes, call, eventually, plain_api, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_names_the_addresses_that_answer_and_sigterm_ends_clean() {
    let routes = Routes::new(&plain_api("help"));
    let mut process = Process::dev(routes.path(), &[]).await;
    assert_ne!((process.public.port(), process.admin.port()), (0, 0));
    assert_eq!(Client::connect(process.public).await.ask("x").await, "help");
    let ready = call(process.admin, "GET", "/ready", &[], b"").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    // It comes behind the first line, in a write of its own.
    let address = format!("ws://localhost:{}/test/dev", process.public.port());
    eventually("the overview", || process.output().contains(&address)).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, 0, "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_clean_too() {
    let routes = Routes::new(&plain_api("help"));
    let mut process = Process::run(routes.path(), &[]).await;
    process.signal(Signal::INT);
    assert_eq!(process.exit().await, 0, "{}", process.log());
}

#[test]
fn bad_definitions_end_with_1_and_every_problem_has_its_place() {
    let routes = Routes::new("apiId: test\nprotocolType: WEBSOCKETS\nroutez: {}\nstages:\n  dev: {limitz: 1}\n");
    routes.write("other.yaml", "apiId: [\n");
    let ended = run(["dev".as_ref(), routes.path().as_os_str()]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(!ended.out.contains("listening"), "{}", ended.out);
    for mistake in ["test.yaml:2:", "test.yaml:3:", "test.yaml:5:", "other.yaml:", "routez", "limitz", "WEBSOCKETS"] {
        assert!(ended.err.contains(mistake), "{mistake} is not in:\n{}", ended.err);
    }
}

#[test]
fn bad_usage_ends_with_2() {
    for args in [&["fly"][..], &[], &["dev", "--no-such-flag"], &["run", "--shards", "0"], &["connections", "get"]] {
        let ended = run(args);
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.err.contains("Usage") || ended.err.contains("error:"), "{args:?}: {}", ended.err);
    }
    for args in [&["--help"][..], &["--version"], &["dev", "--help"]] {
        assert_eq!(run(args).code, 0, "{args:?}");
    }
}

#[test]
fn a_port_in_use_ends_with_3_and_is_named() {
    let routes = Routes::new(&plain_api("help"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (busy, free) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let path = routes.path().to_str().unwrap();
        let ended = run(["dev", path, busy, &address, free, "127.0.0.1:0"]);
        assert_eq!(ended.code, 3, "{busy}: {ended:?}");
        assert!(ended.err.contains(&address), "{busy}: {}", ended.err);
        assert!(!ended.out.contains("listening"), "{busy}: {}", ended.out);
    }
}

#[test]
fn run_refuses_unsafe_states_and_names_what_mends_them() {
    let routes = Routes::new(&plain_api("help"));
    let key = routes.write("key.pem", "x");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (path, key) = (routes.path().to_str().unwrap(), key.to_str().unwrap());
    let token = ["--callback-token", "t"];
    let open_admin = ["--admin", "0.0.0.0:0"];
    let readable = ["--tls-cert", key, "--tls-key", key];
    for (args, named) in [
        (vec![], "--callback-token"),
        ([token, open_admin].concat(), "--admin-token"),
        ([&token[..], &readable].concat(), "--tls-key"),
        (vec!["--callback-token", ""], "callback-token"),
        ([&token[..], &["--tls-cert", key]].concat(), "tls-key"),
    ] {
        let ended = run([&["run", path, "--listen", "127.0.0.1:0"][..], &args].concat());
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
        assert!(ended.err.contains(named), "{args:?}: {named} is not in: {}", ended.err);
        assert!(!ended.out.contains("listening"), "{args:?}: {}", ended.out);
    }
    // All of them at once, when all are there.
    let ended = run([&["run", path][..], &open_admin, &readable].concat());
    for named in ["--callback-token", "--admin-token", "--tls-key"] {
        assert!(ended.err.contains(named), "{named} is not in: {}", ended.err);
    }
}

#[test]
fn dev_refuses_to_serve_others_than_this_machine() {
    let routes = Routes::new(&plain_api("help"));
    let ended = run(["dev", routes.path().to_str().unwrap(), "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("--listen"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_token_is_asked_for_everywhere_but_at_health_and_readiness() {
    let routes = Routes::new(&plain_api("help"));
    let process = Process::run(routes.path(), &["--admin-token", "secret"]).await;
    for path in ["/health", "/ready"] {
        assert_eq!(call(process.admin, "GET", path, &[], b"").await.status, 200, "{path}");
    }
    for path in ["/metrics", "/connections"] {
        assert_eq!(call(process.admin, "GET", path, &[], b"").await.status, 401, "{path}");
        let with = call(process.admin, "GET", path, &["Authorization: Bearer secret"], b"").await;
        assert_eq!(with.status, 200, "{path}");
    }
    process.stop().await;
}

//! Certificates: `wss` with a real client, and a certificate that changes under way.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;
use rustls_pki_types::CertificateDer;

use crate::support::{Client, PATIENCE, Process, Routes, Said, plain_api, run};

/// A self-signed certificate for `localhost`, in the files `cert.pem` and `key.pem` beside the definitions.
fn certify(folder: &Routes) -> (CertificateDer<'static>, PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = folder.write("key.pem", &made.signing_key.serialize_pem());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let cert = folder.write("cert.pem", &made.cert.pem());
    (made.cert.der().clone(), cert, key)
}

/// Connects anew until the server presents `wanted`.
async fn connect_until(process: &Process, wanted: &CertificateDer<'static>) -> Client {
    let started = std::time::Instant::now();
    loop {
        match Client::secure(process.public, std::slice::from_ref(wanted)).await {
            Ok(client) => return client,
            Err(refused) => assert!(started.elapsed() < PATIENCE, "the old one is still in use: {}", refused.why),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_talks_over_tls_and_is_drained_like_any_other() {
    let (routes, keys) = (Routes::new(&plain_api("help")), Routes::new(""));
    let (root, cert, key) = certify(&keys);
    let tls = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut process = Process::run(routes.path(), &tls).await;
    let mut client = Client::secure(process.public, std::slice::from_ref(&root)).await.unwrap();
    assert_eq!(client.certificate.as_ref(), Some(&root));
    assert_eq!(client.ask("anything").await, "help");
    let large = "x".repeat(30_000);
    assert_eq!(client.ask(&large).await, "help");
    // Who does not trust the certificate gets nowhere, and who speaks plain HTTP neither.
    assert!(Client::secure(process.public, &[]).await.is_err());
    assert!(Client::try_connect(process.public).await.is_err());
    assert_eq!(client.ask("still there?").await, "help");
    process.signal(Signal::TERM);
    assert_eq!(client.next().await, Said::Close(1001));
    assert_eq!(process.exit().await, 0, "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_on_sighup_and_sessions_stay() {
    let (routes, keys) = (Routes::new(&plain_api("help")), Routes::new(""));
    let (old, cert, key) = certify(&keys);
    let tls = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let process = Process::run(routes.path(), &tls).await;
    let mut client = Client::secure(process.public, &[old]).await.unwrap();
    let (new, ..) = certify(&keys);
    process.signal(Signal::HUP);
    let mut newcomer = connect_until(&process, &new).await;
    assert_eq!(newcomer.ask("anything").await, "help");
    assert_eq!(client.ask("anything").await, "help");
    drop((client, newcomer));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_noticed_without_a_signal() {
    let (routes, keys) = (Routes::new(&plain_api("help")), Routes::new(""));
    let (old, cert, key) = certify(&keys);
    let tls = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let process = Process::dev(routes.path(), &tls).await;
    let mut client = Client::secure(process.public, std::slice::from_ref(&old)).await.unwrap();
    // One that cannot be used changes nothing.
    keys.write("cert.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n");
    process.signal(Signal::HUP);
    crate::support::eventually("the complaint", || process.log().contains("cannot be used")).await;
    assert!(Client::secure(process.public, &[old]).await.is_ok());
    let (new, ..) = certify(&keys);
    let mut newcomer = connect_until(&process, &new).await;
    assert_eq!(newcomer.ask("anything").await, "help");
    assert_eq!(client.ask("anything").await, "help");
    drop((client, newcomer));
    process.stop().await;
}

#[test]
fn a_certificate_that_does_not_fit_its_key_is_a_refusal() {
    let (routes, keys, others) = (Routes::new(&plain_api("help")), Routes::new(""), Routes::new(""));
    let ((_, cert, _), (_, _, key)) = (certify(&keys), certify(&others));
    let (path, cert, key) = (routes.path().to_str().unwrap(), cert.to_str().unwrap(), key.to_str().unwrap());
    let start = |cert: &str, key: &str| {
        let args = ["run", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--callback-token", "t"];
        run([&args[..], &["--tls-cert", cert, "--tls-key", key]].concat())
    };
    let ended = start(cert, key);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("does not belong") && ended.err.contains(key), "{}", ended.err);
    let ended = start("/no/such/cert.pem", key);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("/no/such/cert.pem"), "{}", ended.err);
}

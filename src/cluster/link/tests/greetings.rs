//! Who is let in: secrets, certificates, versions, incarnations.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn with_secret(text: &str) -> Config {
    Config::new(loopback(), Credentials { secret: Some(Secret::from(text)), certificates: None })
}

fn not_sent(answer: Result<Response, LinkError>) -> String {
    match answer {
        Err(LinkError::NotSent(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_said_on_both_sides_once() {
    let log = Log::start();
    let b = node(2, done);
    let a = node_with(1, &with_secret("another secret of enough bytes"), done);
    a.join();
    b.join();
    within("three attempts", async {
        // A failure is remembered for a moment, so not every request is an attempt.
        while count(&b.links.stats().strangers_refused) < 3 {
            let why = not_sent(a.ask(&b.peer, push(1, "hi")).await);
            assert!(why.contains("refused this node's proof") && why.contains("--cluster-secret"), "{why}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(b.recorder.asked().is_empty());
    assert_eq!(log.lines(&["WARN", "a stranger", "cannot prove the cluster secret"]), 1);
    assert_eq!(log.lines(&["WARN", "no link to a node", "refused this node's proof"]), 1);
    assert_eq!(log.lines(&[SECRET]) + log.lines(&["another secret of"]), 0);
    a.stop().await;
    b.stop().await;
}

/// Ends TLS on both sides, with certificates as good as anybody's, and passes on every byte.
async fn man_in_the_middle(listener: TcpListener, target: SocketAddr) {
    let keys =
        Keys::new(&Credentials { secret: Some(Secret::from("what he does not know")), certificates: None }).unwrap();
    let (near, _) = listener.accept().await.unwrap();
    let mut near = TlsAcceptor::from(keys.server.clone()).accept(near).await.unwrap();
    let far = TcpStream::connect(target).await.unwrap();
    let name = keys.server_name("anywhere").unwrap();
    let mut far = TlsConnector::from(keys.client.clone()).connect(name, far).await.unwrap();
    let _ended = copy_bidirectional(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_man_in_the_middle_has_a_proof_that_fits_nowhere() {
    let b = node(2, done);
    let a = node(1, done);
    a.join();
    b.join();
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let through = peer(2, &listener.local_addr().unwrap().to_string());
    let middle = man_in_the_middle(listener, b.listens);
    let (answer, ()) = within("both to hang up", async { tokio::join!(a.ask(&through, push(1, "hi")), middle) }).await;
    let why = not_sent(answer);
    assert!(why.contains("refused this node's proof"), "{why}");
    eventually("b to refuse him", || count(&b.links.stats().strangers_refused) == 1).await;
    assert!(b.recorder.asked().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_acceptor_that_proves_nothing_is_not_asked() {
    // Knows the frames, and has seen the dialer's proof; sends it back as its own.
    let keys =
        Keys::new(&Credentials { secret: Some(Secret::from("what he does not know")), certificates: None }).unwrap();
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let through = peer(2, &listener.local_addr().unwrap().to_string());
    let mirror = async {
        let (near, _) = listener.accept().await.unwrap();
        let near = TlsAcceptor::from(keys.server.clone()).accept(near).await.unwrap();
        let (mut read, mut write) = tokio::io::split(near);
        let _ended = tokio::io::copy(&mut read, &mut write).await;
    };
    let a = node(1, done);
    a.join();
    let (answer, ()) = within("a to hang up", async { tokio::join!(a.ask(&through, push(1, "hi")), mirror) }).await;
    let why = not_sent(answer);
    assert!(why.contains("cannot prove the cluster secret"), "{why}");
    a.stop().await;
}

struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Files of a node with that name, checked against `trusted`.
    fn issue(&self, name: &str, trusted: &Self) -> Certificates {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path("cert.pem"), made.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        let files = Certificates {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ca: trusted.path("ca.pem"),
        };
        std::fs::rename(self.path("cert.pem"), &files.cert).unwrap();
        std::fs::rename(self.path("key.pem"), &files.key).unwrap();
        files
    }
}

fn with_certificates(certificates: Certificates, secret: Option<&str>) -> Config {
    Config::new(loopback(), Credentials { secret: secret.map(Secret::from), certificates: Some(certificates) })
}

#[tokio::test]
async fn certificates_of_one_authority_let_nodes_link_with_and_without_a_secret() {
    let authority = Authority::new();
    for secret in [None, Some(SECRET)] {
        let config = || with_certificates(authority.issue("127.0.0.1", &authority), secret);
        let (a, b) = (node_with(1, &config(), done), node_with(2, &config(), done));
        list_each_other(&[&a, &b]);
        assert_eq!(a.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));
        assert_eq!(b.ask(&a.peer, push(1, "hi")).await, Ok(Response::Done));
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn wrong_certificates_are_refused_on_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let b = node_with(2, &with_certificates(ours.issue("127.0.0.1", &ours), None), done);
    b.join();
    let cases = [
        ("another authority's node", with_certificates(theirs.issue("127.0.0.1", &theirs), None)),
        ("another authority's node that trusts ours", with_certificates(theirs.issue("127.0.0.1", &ours), None)),
        ("a node without a certificate", with_secret(SECRET)),
        ("one that also wants a secret", with_certificates(ours.issue("127.0.0.1", &ours), Some(SECRET))),
    ];
    for (n, (what, config)) in (1..).zip(cases) {
        let a = node_with(1, &config, done);
        a.join();
        let why = not_sent(a.ask(&b.peer, push(n, "hi")).await);
        eventually(what, || count(&b.links.stats().strangers_refused) >= u64::from(n)).await;
        assert!(!why.is_empty(), "{what}");
        a.stop().await;
    }
    // A certificate for another name than the one that was dialled.
    let c = node_with(3, &with_certificates(ours.issue("node.example", &ours), None), done);
    c.join();
    let a = node_with(1, &with_certificates(ours.issue("127.0.0.1", &ours), None), done);
    a.join();
    let why = not_sent(a.ask(&c.peer, push(1, "hi")).await);
    assert!(why.contains("not valid for name"), "{why}");
    assert!(b.recorder.asked().is_empty() && c.recorder.asked().is_empty());
    a.stop().await;
    b.stop().await;
    c.stop().await;
}

#[tokio::test]
async fn nodes_speak_the_highest_protocol_both_know_and_without_one_not_at_all() {
    let log = Log::start();
    let speaking = |protocols| Config { protocols, ..Config::new(loopback(), secret()) };
    let b = node_with(2, &speaking(2..=4), done);
    b.join();
    for (ours, agreed) in [(1..=3, Some(3)), (4..=9, Some(4)), (3..=3, Some(3)), (1..=1, None), (5..=6, None)] {
        let a = node_with(1, &speaking(ours.clone()), done);
        a.join();
        let answer = a.ask(&b.peer, push(1, "hi")).await;
        if let Some(agreed) = agreed {
            assert_eq!(answer, Ok(Response::Done), "{ours:?}");
            let line = format!("protocol={agreed} dialled=true");
            assert!(log.lines(&["linked to a node", &line]) > 0, "{ours:?}");
        } else {
            let why = not_sent(answer);
            let expected = format!("speaks link protocol 2-4, this node {}-{}", ours.start(), ours.end());
            assert!(why.contains(&expected) && why.contains("0.0.0-test"), "{why}");
        }
        a.stop().await;
    }
    assert_eq!(log.lines(&["WARN", "is of a version this one cannot speak with", "1-1, this node 2-4"]), 1);
    assert_eq!(log.lines(&["WARN", "is of a version this one cannot speak with"]), 1, "once a minute");
    b.stop().await;
}

#[tokio::test]
async fn another_start_of_the_node_is_not_asked() {
    let (a, b) = (node(1, done), node(2, done));
    a.join();
    b.join();
    let before = Peer { incarnation: Incarnation::new(77), ..b.peer.clone() };
    assert_eq!(not_sent(a.ask(&before, push(1, "hi")).await), "another start of the node answers there");
    assert!(!a.links.probe(&before).await, "nor does it answer for the one before");
    assert!(a.links.probe(&b.peer).await);
    assert!(b.recorder.asked().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_has_not_joined_neither_asks_nor_answers() {
    let (a, b) = (node(1, done), node(2, done));
    assert!(not_sent(a.ask(&b.peer, push(1, "hi")).await).contains("this node has not joined"));
    a.join();
    assert!(not_sent(a.ask(&b.peer, push(1, "hi")).await).contains("it has not joined the cluster yet"));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_set_up_is_said_with_the_file() {
    let authority = Authority::new();
    let good = authority.issue("127.0.0.1", &authority);
    let other = authority.issue("node.example", &authority);
    let refusal = |certificates: Certificates| {
        let text = Links::bind(&with_certificates(certificates, None)).unwrap_err().to_string();
        text.replace(authority.dir.path().to_str().unwrap(), "…")
    };
    let empty = authority.path("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let nowhere = Path::new("/nowhere/x.pem").to_owned();
    let text = refusal(Certificates { cert: nowhere.clone(), ..good.clone() });
    assert!(text.starts_with("cannot read /nowhere/x.pem: No such file"), "{text}");
    let text = refusal(Certificates { key: good.cert.clone(), ..good.clone() });
    assert!(text.starts_with("…/127.0.0.1.pem: no private key in PEM"), "{text}");
    let text = refusal(Certificates { ca: empty.clone(), ..good.clone() });
    assert!(text.starts_with("…/empty.pem: no section that begins with"), "{text}");
    let text = refusal(Certificates { key: other.key, ..good });
    assert!(text.starts_with("…/127.0.0.1.pem: cannot be used with …/node.example.key"), "{text}");

    let text = Links::bind(&Config::new(loopback(), Credentials::default())).unwrap_err().to_string();
    assert!(text.contains("needs a cluster secret, or a certificate"), "{text}");
    let text = Links::bind(&with_secret("hunter2")).unwrap_err().to_string();
    assert!(text.contains("has 7 bytes and needs at least 16") && !text.contains("hunter2"), "{text}");
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let text = Links::bind(&Config::new(address, secret())).unwrap_err().to_string();
    assert!(text.starts_with(&format!("the node link cannot listen on {address}: Address already in use")), "{text}");
}

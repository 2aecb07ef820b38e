//! TLS against real clients, in memory and over loopback.

use std::io::{Read as _, Write as _};

use proptest::prelude::*;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::session::walker::tests::{any_cuts, cut};

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

/// A session and a client in memory.
struct Pair {
    server: TlsSession,
    client: ClientConnection,
    plaintext: Vec<u8>,
    status: TlsStatus,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let (server, client) = configs(version);
        let client = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        let server = TlsSession::new(server).unwrap();
        Self { server, client, plaintext: Vec::new(), status: TlsStatus::Handshaking }
    }

    fn connected(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        while pair.client.is_handshaking() || pair.status == TlsStatus::Handshaking {
            pair.exchange(&[]);
        }
        pair
    }

    fn unsent(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut sent).unwrap();
        }
        sent
    }

    /// What the client has to say goes to the server in pieces, what it answers goes back.
    fn exchange(&mut self, cuts: &[prop::sample::Index]) {
        let sent = self.unsent();
        let mut answer = Vec::new();
        for mut piece in cut(&sent, cuts) {
            self.status = self.server.receive(&mut piece, &mut self.plaintext, &mut answer).unwrap();
        }
        self.client_reads(&answer);
    }

    fn client_reads(&mut self, mut ciphertext: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while !ciphertext.is_empty() {
            self.client.read_tls(&mut ciphertext).unwrap();
            self.client.process_new_packets().unwrap();
            match self.client.reader().read_to_end(&mut read) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        read
    }

    fn client_says(&mut self, mut data: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
        while !data.is_empty() {
            let written = self.client.writer().write(data).unwrap();
            data = &data[written..];
            self.exchange(cuts);
        }
        std::mem::take(&mut self.plaintext)
    }

    fn server_says(&mut self, data: &[u8]) -> Vec<u8> {
        let mut ciphertext = Vec::new();
        self.server.encrypt(data, &mut ciphertext).unwrap();
        self.client_reads(&ciphertext)
    }
}

#[test]
fn one_byte_and_a_mebibyte_arrive_in_both_directions_and_nothing_is_kept() {
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut pair = Pair::connected(version);
        assert_eq!(pair.client.protocol_version(), Some(number));
        assert_eq!(pair.server.alpn_protocol(), Some(&b"http/1.1"[..]));
        for size in [1, 100, 16_384, 16_385, 1 << 20] {
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            assert!(pair.client_says(&data, &[]) == data, "{size} from the client, {number:?}");
            assert!(pair.server_says(&data) == data, "{size} from the server, {number:?}");
            assert_eq!(pair.server.held_bytes(), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_cut_gives_the_same_handshake_and_the_same_data(
        data in prop::collection::vec(any::<u8>(), 1..40_000), cuts in any_cuts(), newer in any::<bool>()
    ) {
        let mut pair = Pair::new(if newer { &TLS13 } else { &TLS12 });
        while pair.client.is_handshaking() || pair.status == TlsStatus::Handshaking {
            pair.exchange(&cuts);
        }
        prop_assert!(pair.client_says(&data, &cuts) == data);
        prop_assert_eq!(pair.server.held_bytes(), 0);
    }

    #[test]
    fn garbage_is_an_error_with_an_alert_or_waits_for_more(
        garbage in prop::collection::vec(any::<u8>(), 1..200), cuts in any_cuts(), connected in any::<bool>()
    ) {
        let mut pair = if connected { Pair::connected(&TLS13) } else { Pair::new(&TLS13) };
        let mut answer = Vec::new();
        let mut failed = false;
        for mut piece in cut(&garbage, &cuts) {
            let end = pair.server.receive(&mut piece, &mut pair.plaintext, &mut answer);
            if failed {
                prop_assert!(matches!(end, Err(TlsError::NotOpen)));
            }
            failed |= end.is_err();
        }
        prop_assert_eq!(failed, !answer.is_empty());
        prop_assert!(!failed || pair.server.encrypt(b"x", &mut answer).is_err());
        prop_assert!(pair.plaintext.is_empty());
    }
}

#[test]
fn bytes_one_at_a_time_are_held_only_until_their_record_is_whole() {
    let mut pair = Pair::connected(&TLS13);
    pair.client.writer().write_all(b"hello").unwrap();
    let sent = pair.unsent();
    let mut answer = Vec::new();
    for (i, byte) in sent.iter().enumerate() {
        pair.server.receive(&mut [*byte], &mut pair.plaintext, &mut answer).unwrap();
        assert_eq!(pair.server.held_bytes() > 0, i + 1 < sent.len());
        if i == 3 {
            assert_eq!(pair.server_says(b"between"), b"between", "half a record does not stop the other direction");
        }
    }
    assert_eq!(pair.plaintext, b"hello");
}

#[test]
fn keys_are_renewed_when_the_client_asks() {
    let mut pair = Pair::connected(&TLS13);
    for round in 0..3_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        assert_eq!(pair.client_says(&[round], &[]), [round]);
        assert_eq!(pair.server_says(&vec![round; 20_000]), vec![round; 20_000]);
    }
}

#[test]
fn a_client_that_closes_may_still_be_answered() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.writer().write_all(b"last words").unwrap();
        pair.client.send_close_notify();
        pair.exchange(&[]);
        assert_eq!(pair.plaintext, b"last words");
        assert_eq!(pair.status, TlsStatus::PeerClosed);
        assert!(pair.server.is_peer_closed());
        assert_eq!(pair.server_says(b"farewell"), b"farewell");
        let mut ciphertext = Vec::new();
        pair.server.close_notify(&mut ciphertext).unwrap();
        let once = ciphertext.len();
        pair.server.close_notify(&mut ciphertext).unwrap();
        assert_eq!(ciphertext.len(), once);
        assert!(matches!(pair.server.encrypt(b"x", &mut ciphertext), Err(TlsError::NotOpen)));
        assert!(pair.client.read_tls(&mut &ciphertext[..]).unwrap() > 0);
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        assert_eq!(pair.server.receive(&mut [], &mut Vec::new(), &mut Vec::new()).unwrap(), TlsStatus::PeerClosed);
    }
}

#[test]
fn nothing_can_be_sent_before_the_handshake() {
    let mut pair = Pair::new(&TLS13);
    let mut ciphertext = Vec::new();
    assert!(matches!(pair.server.encrypt(b"x", &mut ciphertext), Err(TlsError::NotOpen)));
    assert!(pair.server.close_notify(&mut ciphertext).is_err());
    assert!(ciphertext.is_empty());
}

/// A tokio client and the server's end of its connection.
async fn over_loopback(
    version: &'static SupportedProtocolVersion,
) -> (tokio_rustls::client::TlsStream<TcpStream>, TlsStream) {
    let (server, client) = configs(version);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let accept = async { TlsStream::accept(listener.accept().await.unwrap().0, server).await };
    let (client, server) = tokio::join!(tokio_rustls::TlsConnector::from(client).connect(name, tcp), accept);
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn a_stream_echoes_and_ends_with_a_farewell() {
    for version in [&TLS12, &TLS13] {
        let (mut client, mut server) = over_loopback(version).await;
        assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
        let echo = async {
            let mut buf = vec![0; 10_000];
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => break,
                    n => server.write_all(&buf[..n]).await.unwrap(),
                }
                server.flush().await.unwrap();
            }
            server.shutdown().await.unwrap();
            assert_eq!(server.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        };
        let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 8) as u8).collect();
        let talk = async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            let mut back = Vec::new();
            let send = async {
                write.write_all(&data[..1]).await.unwrap();
                write.write_all(&data[1..]).await.unwrap();
                write.shutdown().await.unwrap();
            };
            // The clean end of this read is the server's farewell; without one it would be an error.
            let ((), end) = tokio::join!(send, read.read_to_end(&mut back));
            end.unwrap();
            back
        };
        let ((), back) = tokio::join!(echo, talk);
        assert!(back == data);
    }
}

#[tokio::test]
async fn a_cut_connection_is_an_error_not_an_end() {
    let (mut client, mut server) = over_loopback(&TLS13).await;
    client.get_mut().0.shutdown().await.unwrap();
    let error = server.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_stream_taken_apart_goes_on_as_a_session() {
    let (mut client, mut server) = over_loopback(&TLS13).await;
    client.write_all(b"GET / and more").await.unwrap();
    let mut head = [0; 5];
    server.read_exact(&mut head).await.unwrap();
    let TlsParts { mut tcp, mut session, plaintext, ciphertext } = server.into_parts();
    assert_eq!((&head[..], &plaintext[..], &ciphertext[..]), (&b"GET /"[..], &b" and more"[..], &b""[..]));
    client.write_all(b"later").await.unwrap();
    let (mut scratch, mut plain, mut cipher) = (vec![0; 4096], Vec::new(), Vec::new());
    while plain.len() < 5 {
        let n = tcp.read(&mut scratch).await.unwrap();
        session.receive(&mut scratch[..n], &mut plain, &mut cipher).unwrap();
    }
    assert_eq!(plain, b"later");
    session.encrypt(b"answer", &mut cipher).unwrap();
    tcp.write_all(&cipher).await.unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_told_so() {
    let (config, _) = configs(&TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let error = TlsStream::accept(listener.accept().await.unwrap().0, config).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let mut alert = [0; 7];
    client.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "an alert record: {alert:?}");
}

//! Sessions over TLS.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::*;
use crate::session::tls::{TlsParts, TlsStream};

/// A certificate for `localhost`, and who trusts it.
#[derive(Clone)]
pub(super) struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    /// Shakes hands on a connection.
    pub(super) fn connect(&self, runtime: &Runtime, client: TcpStream, server: TcpStream) -> (Client, TlsParts) {
        server.set_nonblocking(true).unwrap();
        let config = Arc::clone(&self.server);
        let accepting = runtime.spawn(async move {
            TlsStream::accept(tokio::net::TcpStream::from_std(server).unwrap(), config).await.unwrap().into_parts()
        });
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        let tcp = client.try_clone().unwrap();
        let mut io = StreamOwned::new(connection, client);
        while io.conn.is_handshaking() {
            io.conn.complete_io(&mut io.sock).unwrap();
        }
        let parts = runtime.block_on(accepting).unwrap();
        (Client { io: Box::new(io), tcp }, parts)
    }
}

impl Io for StreamOwned<ClientConnection, TcpStream> {
    fn rekey(&mut self) {
        self.conn.refresh_traffic_keys().unwrap();
    }

    fn farewell(&mut self, words: &[u8]) {
        self.conn.writer().write_all(words).unwrap();
        self.conn.send_close_notify();
        let mut records = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut records).unwrap();
        }
        self.sock.write_all(&records).unwrap();
    }
}

fn sealed() -> Setup {
    Setup { tls: Some(Configs::new()), ..Setup::default() }
}

#[test]
fn small_and_large_messages_go_both_ways() {
    let world = World::new();
    let mut live = world.open(&sealed());
    for size in [0, 1, 20_000, 131_072] {
        let text = "y".repeat(size);
        let parts: Vec<&[u8]> = text.as_bytes().chunks(30_000).collect();
        for (n, part) in parts.iter().enumerate() {
            let first = u8::from(n == 0) | if n + 1 == parts.len() { 0x80 } else { 0 };
            live.client.raw(&frame(first, KEY, part));
        }
        if parts.is_empty() {
            live.client.text("");
        }
        assert_eq!(live.client.heard(), text, "{size}");
    }
    live.client.raw(&close_frame(1000, ""));
    assert_eq!(live.client.closed().0, 1000);
    drop(live);
    world.is_left_empty();
}

#[test]
fn records_may_arrive_byte_by_byte() {
    let world = World::new();
    let mut live = world.open(&Setup { early: frame(TEXT, KEY, b"early"), ..sealed() });
    assert_eq!(live.client.heard(), "early");
    for byte in frame(TEXT, KEY, b"slowly") {
        live.client.raw(&[byte]);
    }
    assert_eq!(live.client.heard(), "slowly");
}

#[test]
fn pushes_from_several_threads_are_encrypted_in_order() {
    let world = World::new();
    let limits = Limits { max_outbox_bytes: 60_000, max_outbox_messages: 40, ..Limits::default() };
    let mut live = world.open(&Setup { narrow: true, limits, ..sealed() });
    pushes::push_from_many(&mut live);
    eventually("the outbox is empty", || world.hub.stats().budget_used == 0);
    drop(live);
    world.is_left_empty();
}

#[test]
fn a_full_outbox_refuses_before_it_encrypts() {
    let world = World::new();
    let limits = Limits { max_outbox_bytes: 50_000, ..Limits::default() };
    let mut live = world.open(&Setup { narrow: true, limits, ..sealed() });
    let mut taken = 0;
    while live.session.push(&text_message(&format!("{taken}:{}", "x".repeat(9_000)))) == Ok(()) {
        taken += 1;
    }
    assert!(live.session.is_open());
    for n in 0..taken {
        assert!(live.client.heard().starts_with(&format!("{n}:")), "{n}");
    }
    eventually("there is room again", || live.session.push(&text_message("more")).is_ok());
    assert_eq!(live.client.heard(), "more");
}

#[test]
fn compressed_messages_pass_through_tls() {
    let world = World::new();
    let mut live = world.open(&Setup { window_bits: 15, ..sealed() });
    live.client.text(&"z".repeat(3_000));
    let frame = live.client.frame().unwrap();
    assert_eq!(frame.first, 0xc1, "compressed, since it pays");
    let mut plain = Vec::with_capacity(4_000);
    let packed = [frame.payload.as_slice(), &[0, 0, 0xff, 0xff]].concat();
    flate2::Decompress::new(false).decompress_vec(&packed, &mut plain, flate2::FlushDecompress::Sync).unwrap();
    assert_eq!(plain, [b'z'; 3_000]);
}

#[test]
fn a_client_may_change_its_keys() {
    let world = World::new();
    let mut live = world.open(&sealed());
    for _ in 0..3 {
        live.client.io.rekey();
        live.client.text("new keys");
        assert_eq!(live.client.heard(), "new keys");
        live.session.push(&text_message("on both sides")).unwrap();
        assert_eq!(live.client.heard(), "on both sides");
    }
}

#[test]
fn a_record_that_arrived_in_part_is_charged() {
    let world = World::new();
    let mut live = world.open(&sealed());
    live.client.text("warm");
    assert_eq!(live.client.heard(), "warm");
    // The start of a record of the greatest length.
    let mut tcp = live.client.tcp.try_clone().unwrap();
    tcp.write_all(&[0x17, 0x03, 0x03, 0x40, 0x11]).unwrap();
    tcp.write_all(&[0; 10_000]).unwrap();
    eventually("it is charged", || world.hub.stats().budget_used >= 10_000);
    drop((live, tcp));
    world.is_left_empty();
}

#[test]
fn a_farewell_without_an_end_of_the_stream_ends_the_session() {
    let world = World::new();
    let mut live = world.open(&sealed());
    live.client.io.farewell(&frame(TEXT, KEY, b"last words"));
    eventually("the end is noticed", || live.log.end().is_some());
    assert_eq!(live.log.texts(), ["last words"]);
    assert_eq!(live.log.ended(), CloseReason::ClientVanished);
    world.is_left_empty();
}

#[test]
fn garbage_instead_of_a_record_ends_the_session() {
    let world = World::new();
    let live = world.open(&sealed());
    let mut tcp = live.client.tcp.try_clone().unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    eventually("it ends", || live.log.end() == Some(CloseReason::ClientVanished));
    world.is_left_empty();
}

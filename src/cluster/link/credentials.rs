//! What a node shows to others, and what it asks of them.
//!
//! The channel is always TLS 1.3. With certificates of the cluster's own authority both sides present one and check the
//! other's. With the shared secret alone the certificate is made at start and nobody checks whose it is: both sides then
//! prove the secret over a value that only the two ends of this very channel know (RFC 8446, section 7.5), so whoever
//! ends the channel in between has a proof that fits nowhere. Both may be asked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::secret::Secret;

/// Bytes of a proof.
pub(super) const PROOF_BYTES: usize = 32;
/// Fewest bytes of a secret. A node that dials proves first, to whoever answers; a short secret could be guessed from that.
pub const MIN_SECRET_BYTES: usize = 16;
/// Nobody's certificates are longer; a wrong path must not fill the memory.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Both sides name the protocol in the handshake, so that no other TLS client or server gets further.
const ALPN: &[u8] = b"causeway-link";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-causeway-link";
/// A secret's certificate is checked by nobody; a name is needed all the same.
const NOBODY: &str = "node.causeway.invalid";

/// How nodes of a cluster know each other; at least one of the two.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The secret all nodes share, [`MIN_SECRET_BYTES`] or more.
    pub secret: Option<Secret>,
    /// Certificates of the cluster's own authority.
    pub certificates: Option<Certificates>,
}

/// Three PEM files. The certificate must name the host that other nodes dial, and be good for both ends of a connection.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The node's certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// Its private key, unencrypted.
    pub key: PathBuf,
    /// The authorities that sign nodes of this cluster, and nothing else.
    pub ca: PathBuf,
}

/// Why the node link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkSetupError {
    /// The address cannot be listened on.
    #[error("the node link cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing to know other nodes by.
    #[error("the node link needs a cluster secret, or a certificate with its key and authorities")]
    NoCredentials,
    /// A secret that could be guessed.
    #[error("the cluster secret has {bytes} bytes and needs at least {MIN_SECRET_BYTES}: take a random one")]
    ShortSecret {
        /// Its length.
        bytes: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file whose content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The libraries refuse.
    #[error("TLS between nodes cannot be set up: {0}")]
    Tls(String),
}

/// Which side of a channel a proof is for: one must not do for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Dialer,
    Acceptor,
}

/// A value that the two ends of a channel share, and nobody else.
pub(super) type Channel = [u8; 32];

/// Credentials, ready for use.
pub(super) struct Keys {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    proof: Option<hmac::Key>,
    checks_names: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Reads the files and makes what is made at start.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, LinkSetupError> {
        let proof = match &credentials.secret {
            None if credentials.certificates.is_none() => return Err(LinkSetupError::NoCredentials),
            None => None,
            Some(secret) if secret.reveal().len() < MIN_SECRET_BYTES => {
                return Err(LinkSetupError::ShortSecret { bytes: secret.reveal().len() });
            }
            Some(secret) => Some(hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())),
        };
        let (client, server) = match &credentials.certificates {
            Some(files) => mutual(files)?,
            None => anonymous()?,
        };
        Ok(Self { client, server, proof, checks_names: credentials.certificates.is_some() })
    }

    /// The name to ask for at `host`.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = if self.checks_names { host } else { NOBODY };
        ServerName::try_from(name.to_owned()).map_err(|_| format!("{host} is neither a host name nor an address"))
    }

    /// Whether proofs are given and asked for.
    pub(super) const fn proves(&self) -> bool {
        self.proof.is_some()
    }

    /// The proof of one side, over what it says; `None` without a secret.
    pub(super) fn prove(&self, role: Role, channel: &Channel, said: &[u8]) -> Option<[u8; PROOF_BYTES]> {
        let key = self.proof.as_ref()?;
        let tag = hmac::sign(key, &claim(role, channel, said));
        tag.as_ref().first_chunk().copied()
    }

    /// Whether a proof is right; compared in constant time.
    pub(super) fn is_proven(&self, role: Role, channel: &Channel, said: &[u8], proof: &[u8]) -> bool {
        self.proof.as_ref().is_some_and(|key| hmac::verify(key, &claim(role, channel, said), proof).is_ok())
    }
}

/// What is signed. Every part but the last has a fixed length, so no two claims are the same bytes.
fn claim(role: Role, channel: &Channel, said: &[u8]) -> Vec<u8> {
    let role: &[u8] = match role {
        Role::Dialer => b"causeway link 1, the dialer\0\0",
        Role::Acceptor => b"causeway link 1, the acceptor",
    };
    [role, channel, said].concat()
}

/// The value that this TLS channel is known by.
pub(super) fn channel<D>(connection: &rustls::ConnectionCommon<D>) -> Result<Channel, TlsError> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, None)
}

type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

fn refused(error: impl std::fmt::Display) -> LinkSetupError {
    LinkSetupError::Tls(error.to_string())
}

fn anonymous() -> Result<Configs, LinkSetupError> {
    let crypto = Arc::new(provider::default_provider());
    let made = rcgen::generate_simple_self_signed([NOBODY.to_owned()]).map_err(refused)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(refused)?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(crypto)))
        .with_no_client_auth();
    Ok(finish(client, server))
}

fn mutual(files: &Certificates) -> Result<Configs, LinkSetupError> {
    let crypto = Arc::new(provider::default_provider());
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| unusable(&files.key, format!("no private key in PEM, unencrypted: {error}")))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(|error| unusable(&files.ca, format!("not an authority: {error}")))?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&crypto))
        .build()
        .map_err(|error| unusable(&files.ca, error.to_string()))?;
    let does_not_fit =
        |error: TlsError| unusable(&files.cert, format!("cannot be used with {}: {error}", files.key.display()));
    let server = ServerConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(does_not_fit)?;
    let client = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(does_not_fit)?;
    Ok(finish(client, server))
}

/// No tickets and no resumption: links are few and long, and each is to be proven anew.
fn finish(mut client: ClientConfig, mut server: ServerConfig) -> Configs {
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
}

/// Takes any certificate, and only from who holds its key: the proof that follows says who that is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("links speak TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn unusable(path: &Path, reason: String) -> LinkSetupError {
    LinkSetupError::Unusable { path: path.to_owned(), reason }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkSetupError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(path, format!("not valid PEM: {error}")))?;
    if found.is_empty() {
        return Err(unusable(path, "no section that begins with -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, LinkSetupError> {
    let unreadable = |source| LinkSetupError::Unreadable { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(unusable(path, "longer than 1 MiB: is it the right file?".to_owned()));
    }
    Ok(content)
}

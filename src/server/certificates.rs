//! The certificate and key of a TLS listener, read from files and read again when they change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Nobody's certificate chain or key is longer; a wrong path must not fill the memory.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a certificate and key cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that is not there or cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file far too long to be one of these.
    #[error("{path} is longer than 1 MiB: is it the right file?")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file whose text breaks the PEM format.
    #[error("{path} is not valid PEM")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: pem::Error,
    },
    /// PEM without what is looked for.
    #[error("no certificate in {path}: expected a section that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// PEM without what is looked for.
    #[error("no private key in {path}: expected a section that begins with -----BEGIN PRIVATE KEY-----, unencrypted")]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// Two files that do not belong together.
    #[error("the private key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A kind of key or certificate that cannot be used.
    #[error("the certificate in {certificate} cannot be used with the private key in {key}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What tells one version of the two files from another without reading them.
type Fingerprint = [Option<(u64, u64, i64, i64)>; 2];

/// A certificate chain with its key, as two files, and the TLS configuration that presents them.
///
/// The configuration speaks TLS 1.2 and 1.3 and offers `h2` and `http/1.1`. It stays the same over a reload: handshakes
/// that begin afterwards get the new certificate, connections that exist are left alone.
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    resolver: Arc<Resolver>,
    config: Arc<ServerConfig>,
    /// What was looked at last, whether or not it could be used. Held for the length of a reload.
    seen: Mutex<Fingerprint>,
}

impl Certificates {
    /// Reads both files, PEM, the certificate first in its chain.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        // Before the content: a change that comes between is then seen at the next look.
        let seen = fingerprint(certificate, key);
        let pair = read_pair(certificate, key, &provider)?;
        let resolver = Arc::new(Resolver { current: ArcSwap::from_pointee(pair) });
        let unusable =
            |source| CertificateError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets carry their own state, so that a thousand clients that come back cost no memory here.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            resolver,
            config: Arc::new(config),
            seen: Mutex::new(seen),
        })
    }

    /// The configuration for [`TlsStream::accept`](crate::session::tls::TlsStream::accept).
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads the files again if either has changed since they were last read; true when a new pair is in use.
    ///
    /// What cannot be used is logged once and changes nothing, so that two files may be replaced one after the other.
    /// Reads files: call it from where blocking for a moment is allowed.
    pub fn reload_if_changed(&self) -> bool {
        let mut seen = self.seen.lock();
        let now = fingerprint(&self.certificate, &self.key);
        if *seen == now {
            return false;
        }
        *seen = now;
        match read_pair(&self.certificate, &self.key, self.config.crypto_provider()) {
            Ok(pair) => {
                self.resolver.current.store(Arc::new(pair));
                tracing::info!(certificate = %self.certificate.display(), "new certificate in use");
                true
            }
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, reason, "the changed certificate cannot be used, the old one stays");
                false
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificate, key, .. } = self;
        f.debug_struct("Certificates").field("certificate", certificate).field("key", key).finish_non_exhaustive()
    }
}

/// Whether everybody on this machine may read the file, as nobody should a private key.
///
/// # Errors
/// When the file cannot be looked at.
pub fn is_readable_by_everyone(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.mode() & 0o004 != 0)
}

/// Presents the pair that is current when a handshake begins.
#[derive(Debug)]
struct Resolver {
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn fingerprint(certificate: &Path, key: &Path) -> Fingerprint {
    [certificate, key].map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.len(), data.ino(), data.mtime(), data.mtime_nsec()))
    })
}

fn read_pair(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let not_pem = |path: &Path, source| CertificateError::NotPem { path: path.to_owned(), source };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| not_pem(certificate, source))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate { path: certificate.to_owned() });
    }
    let private = PrivateKeyDer::pem_slice_iter(&read(key)?)
        .next()
        .ok_or_else(|| CertificateError::NoPrivateKey { path: key.to_owned() })?
        .map_err(|source| not_pem(key, source))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|source| {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            CertificateError::KeyMismatch { certificate, key }
        } else {
            CertificateError::Unusable { certificate, key, source }
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(CertificateError::TooLong { path: path.to_owned() });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tempfile::TempDir;

    use super::*;
    use crate::session::tls::TlsSession;

    struct Files {
        _dir: TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    /// A certificate and its key, as text.
    fn make() -> (String, String, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
    }

    fn files(certificate: &str, key: &str) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem"), _dir: dir };
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        files
    }

    fn refusal(certificate: &str, key: &str) -> String {
        let files = files(certificate, key);
        let text = Certificates::load(&files.certificate, &files.key).unwrap_err().to_string();
        text.replace(files.certificate.to_str().unwrap(), "C").replace(files.key.to_str().unwrap(), "K")
    }

    /// Whether a client that trusts only `root` gets through the handshake.
    fn is_trusted(certificates: &Certificates, root: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut server = TlsSession::new(certificates.config()).unwrap();
        while client.is_handshaking() {
            let (mut sent, mut answer) = (Vec::new(), Vec::new());
            client.write_tls(&mut sent).unwrap();
            server.receive(&mut sent, &mut Vec::new(), &mut answer).unwrap();
            client.read_tls(&mut &answer[..]).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let (certificate, key, _) = make();
        let (_, other, _) = make();
        let broken = key.replace("-----END", "---");
        for (certificate, key, expected) in [
            (&certificate, &other, "the private key in K does not belong to the certificate in C"),
            (&key, &key, "no certificate in C: expected"),
            (&String::new(), &key, "no certificate in C: expected"),
            (&certificate, &certificate, "no private key in K: expected"),
            (&certificate, &broken, "K is not valid PEM"),
            (&"x".repeat(2 << 20), &key, "C is longer than 1 MiB"),
        ] {
            let text = refusal(certificate, key);
            assert!(text.starts_with(expected), "{text}");
        }
        let missing = Certificates::load(Path::new("/nowhere/c.pem"), Path::new("/nowhere/k.pem")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /nowhere/c.pem");
        assert!(std::error::Error::source(&missing).unwrap().to_string().contains("No such file"));
    }

    #[test]
    fn a_new_pair_is_used_from_the_next_handshake_on() {
        let (first, first_key, first_root) = make();
        let (second, second_key, second_root) = make();
        let files = files(&first, &first_key);
        let certificates = Certificates::load(&files.certificate, &files.key).unwrap();
        assert!(is_trusted(&certificates, &first_root));
        assert!(!certificates.reload_if_changed());

        fs::write(&files.certificate, &second).unwrap();
        assert!(!certificates.reload_if_changed(), "half replaced");
        assert!(is_trusted(&certificates, &first_root));
        fs::remove_file(&files.key).unwrap();
        assert!(!certificates.reload_if_changed(), "gone");

        fs::write(&files.key, &second_key).unwrap();
        assert!(certificates.reload_if_changed());
        assert!(is_trusted(&certificates, &second_root));
        assert!(!is_trusted(&certificates, &first_root));
        assert!(!certificates.reload_if_changed());
    }

    #[test]
    fn a_key_that_everyone_may_read_is_noticed() {
        let files = files("", "");
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_everyone(&files.key).unwrap(), open, "{mode:o}");
        }
        assert!(is_readable_by_everyone(Path::new("/nowhere/k.pem")).is_err());
    }
}

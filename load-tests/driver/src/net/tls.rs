//! A certificate for the servers and a client that trusts it alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};

/// A throw-away certificate for `127.0.0.1`, on disk for the servers, trusted by the client.
#[derive(Debug, Clone)]
pub struct Identity {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of the key, readable by its owner alone.
    pub key: PathBuf,
    /// Trusts just this certificate and never resumes, so that every handshake is a whole one.
    pub client: Arc<ClientConfig>,
}

/// Makes one in `folder`.
pub fn identity(folder: &Path) -> Result<Identity> {
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()])?;
    let certificate = folder.join("certificate.pem");
    let key = folder.join("key.pem");
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(Identity { certificate, key, client: Arc::new(client) })
}

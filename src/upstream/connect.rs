//! Making connections: TCP, then TLS, both under one timeout, each failure with its stage.

use std::error::Error as StdError;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use futures_util::future::MapErr;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Cause, Config};

/// Why the client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The extra certificate authorities cannot be read, or are not PEM certificates.
    #[error("{} holds no readable PEM certificates", path.display())]
    ExtraCa {
        /// [`Config::extra_ca_file`].
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// At which stage a connection failed; found again in the chain of hyper's error.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Name, route, port.
    #[error("no TCP connection")]
    Tcp(#[source] Cause),
    /// The handshake after it.
    #[error("no TLS session")]
    Tls(#[source] Cause),
    /// Both together took too long.
    #[error("connecting took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl ConnectError {
    /// Looks for the stage in a chain of causes.
    pub(super) fn in_chain<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// Connects to `http` and `https` addresses; over TLS it offers HTTP/2 and HTTP/1.1.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<Tcp>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(config: &Config) -> Result<Self, SetupError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Finds the dead peer of a long HTTP/2 connection; a call itself has its deadline.
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(config)?)
            .with_no_client_auth();
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Tcp(tcp));
        Ok(Self { inner, timeout: config.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx).map_err(staged)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let timeout = self.timeout;
        // The timeout is here and not around the call: a connection that another one overtakes is finished in the
        // background, and must end too.
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(connected) => connected.map_err(staged),
                Err(_) => Err(ConnectError::TimedOut(timeout)),
            }
        })
    }
}

/// The TLS layer hands on errors of the TCP layer as they are, so whatever is not one of those is its own.
fn staged(error: Cause) -> ConnectError {
    match error.downcast::<ConnectError>() {
        Ok(tcp) => *tcp,
        Err(tls) => ConnectError::Tls(tls),
    }
}

/// The TCP layer, its errors marked.
#[derive(Debug, Clone)]
struct Tcp(HttpConnector);

type TcpError = <HttpConnector as Service<Uri>>::Error;

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = MapErr<<HttpConnector as Service<Uri>>::Future, fn(TcpError) -> ConnectError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.0.poll_ready(cx).map_err(|error| ConnectError::Tcp(error.into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.0.call(uri).map_err(|error| ConnectError::Tcp(error.into()))
    }
}

/// The system's certificate authorities and the extra ones.
fn roots(config: &Config) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some certificate authorities of the system cannot be read");
    }
    let (taken, refused) = roots.add_parsable_certificates(native.certs);
    tracing::debug!(taken, refused, "certificate authorities of the system");
    if let Some(path) = &config.extra_ca_file {
        let failed = |source: Cause| SetupError::ExtraCa { path: path.clone(), source };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.into()))?;
        let mut count = 0_usize;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.into()))?;
            roots.add(certificate).map_err(|error| failed(error.into()))?;
            count += 1;
        }
        if count == 0 {
            return Err(failed("no certificate in the file".into()));
        }
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authority is known: every https upstream will be refused");
    }
    Ok(roots)
}

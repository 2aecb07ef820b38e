//! A connection to one Redis server: TCP, TLS, login, database.
//!
//! The socket and its TLS are made here and not by the client library, so that the cryptography is chosen by us, the
//! roots are read once, and the task that drives a connection is one of [`Tasks`]: it ends when the connection is dropped,
//! even while a stuck server owes it answers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, Value};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::sync::DropGuard;

use super::address::{Address, Target};
use super::{error, piece};
use crate::cluster::registry::RegistryError;
use crate::secret::Secret;
use crate::tasks::Tasks;

/// Commands on one connection that may wait for their answers; more wait for their turn, within their deadline.
const IN_FLIGHT: usize = 4_096;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with certificates cannot be read.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The file holds no certificate.
    #[error("{0} holds no certificate in PEM form")]
    Empty(PathBuf),
    /// The system has no roots.
    #[error("this system has no certificates of authorities; name a file with Redis's own")]
    NoRoots,
    /// The cryptography cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Makes connections.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    user: Option<String>,
    password: Option<Secret>,
    database: u16,
    tasks: Tasks,
    /// Connections made, those to sentinels apart.
    made: AtomicU64,
}

/// Whether to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// With the address's user and password, and choose the database.
    Yes,
    /// With the user and password, without a database: a sentinel has none.
    Sentinel,
    /// Not.
    No,
}

impl Dialer {
    /// Reads the roots when TLS is asked for: those of the file alone, or the system's when there is none.
    pub(super) fn new(address: &Address, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let tls = if address.tls { Some(connector(ca_file)?) } else { None };
        let (user, password) = (address.user.clone(), address.password.clone());
        Ok(Self { tls, user, password, database: address.database, tasks: Tasks::new(), made: AtomicU64::new(0) })
    }

    /// Connections made so far.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Connects, logs in, chooses the database. Has no deadline of its own.
    pub(super) async fn dial(&self, to: &Target, login: Login) -> Result<Wire, RegistryError> {
        let failed = |error: io::Error| RegistryError::Unreachable(format!("{to}: {error}"));
        let tcp = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let wire = match &self.tls {
            None => self.drive(tcp, to).await?,
            Some(tls) => {
                let name = ServerName::try_from(to.host.clone())
                    .map_err(|error| RegistryError::Unreachable(format!("{to}: {error}")))?;
                self.drive(tls.connect(name, tcp).await.map_err(failed)?, to).await?
            }
        };
        self.greet(&wire, to, login).await?;
        if login == Login::Yes {
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(wire)
    }

    async fn drive<S>(&self, stream: S, to: &Target) -> Result<Wire, RegistryError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Deadlines and login are ours: the library's answers to a wrong password do not say what was wrong.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_concurrency_limit(IN_FLIGHT);
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| RegistryError::Unreachable(format!("{to}: {error}")))?;
        let token = self.tasks.token().child_token();
        let (guard, alive) = (token.clone().drop_guard(), Arc::new(AtomicBool::new(true)));
        let ended = Arc::clone(&alive);
        self.tasks.spawn("redis", async move {
            let _ended = token.run_until_cancelled(driver).await;
            ended.store(false, Ordering::Release);
        });
        Ok(Wire { connection, alive, answered: Mutex::new(Instant::now()), _guard: guard })
    }

    async fn greet(&self, wire: &Wire, to: &Target, login: Login) -> Result<(), RegistryError> {
        let mut commands = Vec::new();
        if let (Some(password), Login::Yes | Login::Sentinel) = (&self.password, login) {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = &self.user {
                auth.arg(user);
            }
            auth.arg(password.reveal());
            commands.push(auth);
        }
        if self.database != 0 && login == Login::Yes {
            commands.push(redis::cmd("SELECT").arg(self.database).take());
        }
        if commands.is_empty() {
            return Ok(());
        }
        let unreachable = |error: RedisError| RegistryError::Unreachable(format!("{to}: {error}"));
        for answer in wire.ask(&piece(commands)).await.map_err(unreachable)? {
            if let Value::ServerError(error) = answer {
                return Err(error::login(&error, to));
            }
        }
        Ok(())
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).field("user", &self.user).finish_non_exhaustive()
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let failed = |message: String| TlsError::File { path: path.to_owned(), message };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Empty(path.to_owned()));
        }
    } else {
        let _counts = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection to one server. Its driver ends when this is dropped.
pub(super) struct Wire {
    connection: MultiplexedConnection,
    alive: Arc<AtomicBool>,
    /// When the last answer came. The lock is held for a copy.
    answered: Mutex<Instant>,
    _guard: DropGuard,
}

impl Wire {
    /// Whether the server has not closed it.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// When the last answer came, or it was made.
    pub(super) fn answered(&self) -> Instant {
        *self.answered.lock()
    }

    /// Sends commands in one piece; their answers in order, refusals of the server among them.
    pub(super) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection.clone();
        let answers = connection.send_packed_commands(commands, 0, commands.len()).await?;
        *self.answered.lock() = Instant::now();
        Ok(answers)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("alive", &self.is_alive()).finish_non_exhaustive()
    }
}

//! Credentials for calls to AWS, from the places its SDKs look in.
//!
//! In this order: the environment; a profile of the shared files; the container's endpoint; the instance's. The first that
//! has some ends the search. Found ones are kept and looked for again before they end, by one task however many calls
//! wait; while old ones still count nobody waits.

mod endpoints;
mod profile;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{Http, UpstreamError, lambda};
use crate::clock::{Clock, EpochMillis};
use crate::secret::Secret;
use crate::sigv4::{Credentials, DerivedKeys, Scope};
use crate::tasks::Tasks;

/// Before their end by this much, credentials are replaced: as long as the endpoints promise new ones beforehand.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// Credentials that end sooner than this count as ended: a call with them may arrive too late.
const MARGIN: Duration = Duration::from_secs(15);
/// How long credentials of a file are taken as read.
const FILE_AGE: Duration = Duration::from_secs(60);
/// After a search that found nothing, calls fail at once for this long.
const PAUSE: Duration = Duration::from_secs(2);

/// Where credentials may come from, as far as the environment says.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, with `AWS_SESSION_TOKEN`.
    pub environment: Option<Credentials>,
    /// The shared files and the profile in them.
    pub profile: Profile,
    /// The endpoint of a container, where there is one.
    pub container: Option<Container>,
    /// The metadata service of an instance, without a slash at its end; `None` when it is switched off.
    pub instance: Option<String>,
}

/// The shared files.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// `AWS_PROFILE`; `None` is `default`, which need not be there.
    pub name: Option<String>,
    /// `AWS_SHARED_CREDENTIALS_FILE`, or `.aws/credentials` at home.
    pub credentials_file: Option<PathBuf>,
    /// `AWS_CONFIG_FILE`, or `.aws/config` at home.
    pub config_file: Option<PathBuf>,
}

/// The endpoint of a container.
#[derive(Debug, Clone)]
pub struct Container {
    /// The whole address.
    pub url: String,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub token: Option<Secret>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, read anew for each request.
    pub token_file: Option<PathBuf>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No source has any.
    #[error(
        "none found: not in the environment, the shared files, a container's endpoint or an instance's (the last said: {instance})"
    )]
    None {
        /// Why the last resort failed.
        instance: String,
    },
    /// The chosen profile cannot be used.
    #[error("profile `{name}` {reason}")]
    Profile {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A shared file is there and cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The container's endpoint does not give any.
    #[error("the container's endpoint gives none: {0}")]
    Container(String),
    /// The instance's endpoint does not give any.
    #[error("the instance's endpoint gives none: {0}")]
    Instance(String),
}

/// Credentials that were found.
#[derive(Debug)]
pub(super) struct Signer {
    credentials: Credentials,
    keys: DerivedKeys,
    /// The region of the profile.
    pub(super) region: Option<String>,
    /// When they end.
    expires: Option<EpochMillis>,
    /// From when on new ones are looked for.
    renew: Option<EpochMillis>,
}

impl Signer {
    fn new(credentials: Credentials) -> Self {
        Self { credentials, keys: DerivedKeys::default(), region: None, expires: None, renew: None }
    }

    /// Signs a call in place.
    pub(super) fn sign(
        &self,
        request: &mut Request<Bytes>,
        scope: Scope<'_>,
        time: EpochMillis,
    ) -> Result<(), UpstreamError> {
        lambda::sign(request, &self.credentials, &self.keys, scope, time)
    }
}

/// What the last search came to.
#[derive(Debug, Clone, Default)]
struct Latest {
    found: Option<Arc<Signer>>,
    failed: Option<(Instant, Arc<CredentialsError>)>,
}

/// The search, and what it found.
#[derive(Debug)]
pub(super) struct Chain {
    sources: Sources,
    http: Arc<Http>,
    clock: Clock,
    tasks: Tasks,
    latest: watch::Sender<Latest>,
    searching: AtomicBool,
}

/// Marks that a search runs; dropped, even by a panic, it runs no more.
struct Searching<'a>(&'a AtomicBool);

impl Drop for Searching<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Chain {
    pub(super) fn new(sources: Sources, http: Arc<Http>, clock: Clock, tasks: Tasks) -> Arc<Self> {
        let latest = watch::Sender::new(Latest::default());
        Arc::new(Self { sources, http, clock, tasks, latest, searching: AtomicBool::new(false) })
    }

    /// The credentials now; waits only when there are none that count.
    ///
    /// # Errors
    /// What the search met; `None` when it was not over by `deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the search.
    pub(super) async fn get(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Signer>, Option<Arc<CredentialsError>>> {
        let mut changes = self.latest.subscribe();
        loop {
            let latest = changes.borrow_and_update().clone();
            let now = self.clock.now();
            let counts = |signer: &Arc<Signer>| signer.expires.is_none_or(|end| end.since(now) > millis(MARGIN));
            let has_just_failed = latest.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE);
            if let Some(signer) = latest.found.filter(counts) {
                if signer.renew.is_some_and(|renew| renew <= now) && !has_just_failed {
                    self.search();
                }
                return Ok(signer);
            }
            match latest.failed {
                Some((_, error)) if has_just_failed => return Err(Some(error)),
                Some(_) | None => self.search(),
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(None);
            }
        }
    }

    /// Starts a search, unless one runs.
    fn search(self: &Arc<Self>) {
        if self.searching.swap(true, Ordering::AcqRel) {
            return;
        }
        let chain = Arc::clone(self);
        // Not in the caller's own time: one with little patience would cut it off again and again.
        self.tasks.spawn("credentials", async move {
            let searching = Searching(&chain.searching);
            let result = tokio::select! {
                result = chain.find() => result,
                () = chain.tasks.token().cancelled() => return,
            };
            drop(searching);
            chain.tell(result);
        });
    }

    /// Publishes what a search came to, and says in the log what is new about it.
    fn tell(&self, result: Result<(Signer, &'static str), CredentialsError>) {
        self.latest.send_modify(|latest| match result {
            Ok((signer, source)) => {
                let is_new = latest.found.as_ref().is_none_or(|old| old.expires.is_some()) || latest.failed.is_some();
                if is_new {
                    let expires = signer.expires.map(EpochMillis::to_iso);
                    tracing::info!(source, expires, "credentials to call functions with");
                }
                *latest = Latest { found: Some(Arc::new(signer)), failed: None };
            }
            Err(error) => {
                let text = super::chain(&error);
                if latest.failed.as_ref().is_none_or(|(_, old)| super::chain(&**old) != text) {
                    tracing::error!(error = text, "no credentials to call functions with");
                }
                latest.failed = Some((Instant::now(), Arc::new(error)));
            }
        });
    }

    async fn find(&self) -> Result<(Signer, &'static str), CredentialsError> {
        let profile = profile::read(&self.sources.profile).await?;
        let in_region = |signer: Signer| Signer { region: profile.region.clone(), ..signer };
        if let Some(credentials) = &self.sources.environment {
            return Ok((in_region(Signer::new(credentials.clone())), "environment"));
        }
        if let Some(credentials) = profile.credentials()? {
            let renew = Some(EpochMillis(self.clock.now().0 + millis(FILE_AGE)));
            return Ok((in_region(Signer { renew, ..Signer::new(credentials) }), "profile"));
        }
        let (given, source) = match (&self.sources.container, &self.sources.instance) {
            (Some(container), _) => {
                (endpoints::container(&self.http, container).await.map_err(CredentialsError::Container)?, "container")
            }
            (None, Some(instance)) => match endpoints::instance(&self.http, instance).await {
                Ok(given) => (given, "instance"),
                Err(endpoints::InstanceError::Absent(instance)) => return Err(CredentialsError::None { instance }),
                Err(endpoints::InstanceError::Refused(why)) => return Err(CredentialsError::Instance(why)),
            },
            (None, None) => return Err(CredentialsError::None { instance: "it is switched off".to_owned() }),
        };
        let renew = given.expires.map(|end| EpochMillis(end.0.saturating_sub(millis(AHEAD))));
        let signer = Signer { expires: given.expires, renew, ..Signer::new(given.credentials) };
        Ok((in_region(signer), source))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

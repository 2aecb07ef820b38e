//! Whether a caller may: signatures and policies of handshakes and callbacks.

use super::{ConnectRequest, Deployed, Gateway, LiveStage, rescue};
use crate::auth::iam::{Asked, RequestFacts, Signer};
use crate::clock::EpochMillis;
use crate::context::Caller;
use crate::definition::Authorization;
use crate::fault::Fault;
use crate::sigv4;

impl Gateway {
    /// Who may make a handshake: whoever signed it, where the `$connect` route wants that, else anybody; and in both cases
    /// only as far as the API's own policy lets them (specification 8.3; REST specification 7.8).
    pub(super) fn authorize_connect(
        &self,
        request: &ConnectRequest<'_>,
        deployed: &Deployed,
        now: EpochMillis,
    ) -> Result<Option<Box<Caller>>, Fault> {
        let api = &*deployed.api;
        let is_signed = api.connect.as_ref().is_some_and(|route| route.authorization == Authorization::Iam);
        if !is_signed && api.policy.is_none() {
            return Ok(None);
        }
        let header = |name: &str| {
            request.wire.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
        };
        let facts = RequestFacts {
            source_ip: request.source_ip,
            is_tls: request.is_tls,
            user_agent: header("user-agent"),
            referer: header("referer"),
            now,
        };
        let path = format!("{}/$connect", request.stage.name);
        let policy = api.policy.as_deref();
        let asked = Asked { action: "execute-api:Invoke", api: &api.id, path: &path, policy, request: &facts };
        if !is_signed {
            return self.iam.authorize_anybody(&asked).map(|()| None).map_err(rescue::denied);
        }
        let signer = self.iam.identify(&request.wire, now).map_err(rescue::refused)?;
        signer.prove(&request.wire, b"").map_err(rescue::refused)?;
        signer.authorize(&asked).map_err(rescue::denied)?;
        let principal = signer.principal();
        Ok(Some(Box::new(Caller {
            account: principal.account.clone(),
            id: principal.id.clone(),
            arn: principal.arn.clone(),
            access_key: signer.access_key().into(),
        })))
    }

    /// Whether somebody has a key, and a signature can mean anything.
    pub fn has_keys(&self) -> bool {
        self.iam.has_keys()
    }

    /// Whether a signature says that it was made with a key that somebody has.
    pub fn is_key_named(&self, authorization: &str, query: &str) -> bool {
        self.iam.is_key_named(authorization) || self.iam.is_key_named(query)
    }

    /// Who says that they signed a callback; what is said is proven by [`Gateway::permit`].
    ///
    /// # Errors
    /// [`Fault::IncompleteSignature`], [`Fault::InvalidSignature`], [`Fault::UnrecognizedClient`],
    /// [`Fault::ExpiredToken`], [`Fault::MissingAuthenticationToken`].
    pub fn identify<'a>(&'a self, request: &sigv4::Request<'a>) -> Result<Signer<'a>, Fault> {
        self.iam.identify(request, self.clock.now()).map_err(rescue::refused)
    }

    /// Whether a callback was signed by whom it names, over this body, and may be made: `path` is what is called below
    /// the stage, as policies name it, `POST/@connections/{connectionId}`.
    ///
    /// # Errors
    /// [`Fault::InvalidSignature`], then [`Fault::NotAuthorized`] (specification 6.4.5).
    pub fn permit(&self, stage: &LiveStage, signer: &Signer<'_>, call: &SignedCall<'_>) -> Result<(), Fault> {
        signer.prove(&call.request, call.body).map_err(rescue::refused)?;
        let deployed = stage.load();
        let asked = Asked {
            action: "execute-api:ManageConnections",
            api: &stage.api,
            path: &format!("{}/{}", stage.name, call.path),
            policy: deployed.api.policy.as_deref(),
            request: &RequestFacts { now: self.clock.now(), ..call.facts },
        };
        signer.authorize(&asked).map_err(rescue::denied)
    }
}

/// A callback as its signature and the policies see it.
#[derive(Debug, Clone, Copy)]
pub struct SignedCall<'a> {
    /// The request that the signer was identified by.
    pub request: sigv4::Request<'a>,
    /// Its whole body.
    pub body: &'a [u8],
    /// What is called below the stage.
    pub path: &'a str,
    /// What conditions may ask for; its time is the gateway's to say.
    pub facts: RequestFacts<'a>,
}

//! Whether a caller may: signatures and policies of handshakes and callbacks.

use std::time::Duration;

use super::{ConnectRequest, Deployed, Gateway, LiveStage, rescue};
use crate::auth::iam::{Asked as Permission, RequestFacts, Signer};
use crate::clock::EpochMillis;
use crate::context::{Authorized, Caller, RequestContext};
use crate::definition::Authorization;
use crate::fault::Fault;
use crate::integration::Asked;
use crate::lang::Variables as _;
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
        let is_signed = api.connect.as_ref().is_some_and(|route| matches!(route.authorization, Authorization::Iam));
        if !is_signed && api.policy.is_none() {
            return Ok(None);
        }
        let facts = facts_of(request, now);
        let path = format!("{}/$connect", request.stage.name);
        let policy = api.policy.as_deref();
        let asked = Permission { action: "execute-api:Invoke", api: &api.id, path: &path, policy, request: &facts };
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

    /// Asks the `$connect` route's authorizer, if it has one: whom it recognises, and how long it took (specification 8.2).
    ///
    /// # Errors
    /// The fault the client gets, and what the log says of it.
    pub(super) async fn ask_authorizer(
        &self,
        request: &ConnectRequest<'_>,
        deployed: &Deployed,
        ctx: &RequestContext<'_>,
    ) -> Result<Option<(Authorized, Duration)>, (Fault, Option<String>)> {
        let Some(Authorization::Custom(authorizer)) = deployed.api.connect.as_ref().map(|route| &route.authorization)
        else {
            return Ok(None);
        };
        // Which of two would count is nothing to guess about (specification 8.2.11).
        if ctx.headers("authorization").len() > 1 {
            return Err((Fault::BadRequest, None));
        }
        let facts = facts_of(request, ctx.time);
        let asked = Asked { own: &self.iam.own(&deployed.api.id), facts: &facts };
        let answer = self.integrations.authorize(authorizer, ctx, &request.handshake, asked).await;
        answer.map(Some).map_err(|error| {
            let fault = rescue::unauthorized(&error);
            // A client that is turned away is nothing to complain of.
            let is_broken = matches!(fault, Fault::AuthorizerFailure | Fault::AuthorizerConfiguration);
            (fault, is_broken.then(|| rescue::chain(&error)))
        })
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
        let asked = Permission {
            action: "execute-api:ManageConnections",
            api: &stage.api,
            path: &format!("{}/{}", stage.name, call.path),
            policy: deployed.api.policy.as_deref(),
            request: &RequestFacts { now: self.clock.now(), ..call.facts },
        };
        signer.authorize(&asked).map_err(rescue::denied)
    }
}

/// What policies may ask of a handshake.
fn facts_of<'a>(request: &'a ConnectRequest<'_>, now: EpochMillis) -> RequestFacts<'a> {
    let header =
        |name: &str| request.wire.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    RequestFacts {
        source_ip: request.source_ip,
        is_tls: request.is_tls,
        user_agent: header("user-agent"),
        referer: header("referer"),
        now,
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

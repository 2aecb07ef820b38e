//! Keys, sessions, policies together; what is cached and what must not be.

use serde_json::{Value, json};

use super::*;
use crate::lang::policy::Kind;
use crate::secret::Secret;
use crate::sigv4::{Credentials, sign};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn policy(statement: &Value, kind: Kind) -> Policy {
    Policy::parse(&json!({"Version": "2012-10-17", "Statement": statement}), kind).unwrap()
}

fn allow(action: &str, resource: &str) -> Policy {
    policy(&json!({"Effect": "Allow", "Action": action, "Resource": resource}), Kind::Identity)
}

fn now() -> EpochMillis {
    EpochMillis::from_basic_iso("20240312T190358Z").unwrap()
}

fn iam(policies: Vec<Policy>) -> Iam {
    let user = Identity {
        name: "ann".into(),
        is_role: false,
        policies: policies.clone(),
        tags: [("Team".to_owned(), "blue".to_owned())].into(),
        keys: vec![AccessKey { id: "AKIAANN".into(), secret: SECRET.into(), session: None }],
    };
    let session = |id: &str, expires| AccessKey {
        id: id.into(),
        secret: SECRET.into(),
        session: Some(Session { name: "s1".into(), token: "TOKEN".into(), expires }),
    };
    let role = Identity {
        name: "fn".into(),
        is_role: true,
        policies,
        tags: std::collections::BTreeMap::default(),
        keys: vec![
            session("ASIANOW", Some(EpochMillis(now().0 + 1))),
            session("ASIAOVER", Some(now())),
            session("ASIALONG", None),
        ],
    };
    Iam::new(Config { account: "123456789012".into(), identities: vec![user, role], ..Config::default() })
}

fn facts() -> RequestFacts<'static> {
    RequestFacts { source_ip: [192, 0, 2, 7].into(), is_tls: true, user_agent: Some("ua"), referer: None, now: now() }
}

/// Signs a push, hands what carries it to `use_it`.
fn signed<T>(id: &str, token: Option<&str>, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
    let credentials =
        Credentials { access_key: id.into(), secret: SECRET.into(), session_token: token.map(Secret::from) };
    let plain = [("host", "chat.localhost")];
    let request = Request { method: "POST", path: "/prod/@all", query: "", headers: &plain };
    let scope = Scope { region: "us-east-1", service: "execute-api" };
    let added = sign(&credentials, &DerivedKeys::default(), scope, &request, b"hi", now());
    let mut headers = plain.to_vec();
    headers.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    use_it(&Request { headers: &headers, ..request })
}

#[test]
fn only_a_known_key_with_its_own_token_in_its_time_is_identified() {
    let iam = iam(Vec::new());
    let identify = |id: &str, token: Option<&str>| {
        signed(id, token, |request| {
            let signer = iam.identify(request, now())?;
            signer.prove(request, b"hi")?;
            assert!(signer.prove(request, b"ho").is_err());
            Ok::<_, Refused>((signer.principal().arn.to_string(), signer.access_key().to_owned()))
        })
    };
    let (ann, role) = ("arn:aws:iam::123456789012:user/ann", "arn:aws:sts::123456789012:assumed-role/fn/s1");
    assert_eq!(identify("AKIAANN", None), Ok((ann.into(), "AKIAANN".into())));
    assert_eq!(identify("ASIANOW", Some("TOKEN")), Ok((role.into(), "ASIANOW".into())));
    assert_eq!(identify("ASIALONG", Some("TOKEN")), Ok((role.into(), "ASIALONG".into())));
    assert_eq!(identify("ASIAOVER", Some("TOKEN")), Err(Refused::ExpiredToken));
    for (id, token) in [
        ("AKIANOBODY", None),
        ("AKIAANN", Some("TOKEN")),
        ("ASIANOW", None),
        ("ASIANOW", Some("TOKEn")),
        ("ASIAOVER", Some("guess")),
    ] {
        assert_eq!(identify(id, token), Err(Refused::UnknownKey), "{id} {token:?}");
    }
}

/// Asks as the user, or as the session of the role.
fn ask(iam: &Iam, id: &str, action: &str, path: &str, resource_policy: Option<&Policy>) -> Result<(), String> {
    let (api, facts) = (ApiId::parse("chat").unwrap(), facts());
    let token = id.starts_with("ASIA").then_some("TOKEN");
    signed(id, token, |request| {
        let signer = iam.identify(request, now()).unwrap();
        let asked = Asked { action, api: &api, path, policy: resource_policy, request: &facts };
        signer.authorize(&asked).map_err(|denied| denied.0)
    })
}

const MANAGE: &str = "execute-api:ManageConnections";

// checklist: 203, 204, 205, 206
#[test]
fn a_grant_names_method_and_kind_of_target() {
    let post = iam(vec![allow(MANAGE, "arn:aws:execute-api:*:*:chat/prod/POST/@connections/*")]);
    let connection = "/@connections/{connectionId}";
    assert_eq!(ask(&post, "AKIAANN", MANAGE, &format!("prod/POST{connection}"), None), Ok(()));
    for other in [
        format!("prod/DELETE{connection}"),
        format!("dev/POST{connection}"),
        "prod/POST/@all".into(),
        "prod/POST/@groups/room".into(),
    ] {
        assert!(ask(&post, "AKIAANN", MANAGE, &other, None).is_err(), "{other}");
    }
    let invoke = iam(vec![allow("execute-api:Invoke", "*")]);
    assert_eq!(
        ask(&invoke, "ASIALONG", MANAGE, &format!("prod/POST{connection}"), None),
        Err("User: arn:aws:sts::123456789012:assumed-role/fn/s1 is not authorized to perform: \
             execute-api:ManageConnections on resource: \
             arn:aws:execute-api:us-east-1:********9012:chat/prod/POST/@connections/{connectionId}"
            .into())
    );
    let concrete = iam(vec![allow(MANAGE, "arn:aws:execute-api:*:*:chat/prod/POST/@connections/L0SM9cOFvHcCIhw=")]);
    assert!(ask(&concrete, "AKIAANN", MANAGE, &format!("prod/POST{connection}"), None).is_err());
    let groups = iam(vec![allow(MANAGE, "arn:aws:execute-api:us-east-1:123456789012:chat/prod/POST/@groups/room-*")]);
    assert_eq!(ask(&groups, "AKIAANN", MANAGE, "prod/POST/@groups/room-1", None), Ok(()));
    assert!(ask(&groups, "AKIAANN", MANAGE, "prod/POST/@groups/staff", None).is_err());
}

/// Table A of REST specification 7.8.
#[test]
fn an_api_s_policy_and_the_caller_s_are_taken_together() {
    let statement = |effect: &str| json!({"Effect": effect, "Principal": {"AWS": "arn:aws:iam::123456789012:role/fn"}, "Action": "*", "Resource": "execute-api:/*"});
    let (allows, denies) = (policy(&statement("Allow"), Kind::Resource), policy(&statement("Deny"), Kind::Resource));
    let deny = policy(&json!({"Effect": "Deny", "Action": "*", "Resource": "*"}), Kind::Identity);
    for (own, resource, is_allowed) in [
        (vec![allow("*", "*")], Some(&allows), true),
        (vec![allow("*", "*")], None, true),
        (vec![allow("*", "*")], Some(&denies), false),
        (vec![], Some(&allows), true),
        (vec![], None, false),
        (vec![], Some(&denies), false),
        (vec![deny.clone()], Some(&allows), false),
        (vec![allow("*", "*"), deny], None, false),
    ] {
        let outcome = ask(&iam(own.clone()), "ASIALONG", "execute-api:Invoke", "prod/$connect", resource);
        assert_eq!(outcome.is_ok(), is_allowed, "{own:?} {resource:?}");
    }
    let silent = ask(&iam(vec![]), "AKIAANN", "execute-api:Invoke", "prod/$connect", Some(&allows));
    assert!(silent.is_err(), "another principal than the policy's");
}

#[test]
fn nobody_in_particular_needs_the_api_s_word_where_it_has_one() {
    let (iam, api, facts) = (iam(vec![]), ApiId::parse("chat").unwrap(), facts());
    let ask = |policy: Option<&Policy>| {
        let asked = Asked { action: "execute-api:Invoke", api: &api, path: "prod/$connect", policy, request: &facts };
        iam.authorize_anybody(&asked).map_err(|denied| denied.0)
    };
    assert_eq!(ask(None), Ok(()));
    let start = "User: anonymous is not authorized to perform: execute-api:Invoke on resource: \
                 arn:aws:execute-api:us-east-1:********9012:chat/prod/$connect";
    let on_ip = |effect: &str, network: &str| {
        policy(
            &json!([
                {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/prod/*"},
                {"Effect": effect, "Principal": "*", "Action": "*", "Resource": "*",
                 "Condition": {"IpAddress": {"aws:SourceIp": network}}}]),
            Kind::Resource,
        )
    };
    assert_eq!(ask(Some(&on_ip("Deny", "198.51.100.0/24"))), Ok(()));
    assert_eq!(
        ask(Some(&on_ip("Deny", "192.0.2.0/24"))),
        Err(format!("{start} with an explicit deny in a resource-based policy"))
    );
    let other = policy(
        &json!({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "execute-api:/dev/*"}),
        Kind::Resource,
    );
    assert_eq!(
        ask(Some(&other)),
        Err(format!("{start} because no resource-based policy allows the execute-api:Invoke action"))
    );
}

#[test]
fn conditions_are_asked_every_time() {
    let steady = iam(vec![allow("*", "*")]);
    let by_time = iam(vec![policy(
        &json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
            "DateLessThan": {"aws:CurrentTime": "2024-03-12T19:04:00Z"}, "StringEquals": {"aws:PrincipalTag/team": "blue"},
            "ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/a*"}, "Bool": {"aws:SecureTransport": "true"}}}),
        Kind::Identity,
    )]);
    let (api, path) = (ApiId::parse("chat").unwrap(), "prod/$connect");
    let later = RequestFacts { now: EpochMillis(now().0 + 10_000), ..facts() };
    for (iam, then, is_allowed) in
        [(&by_time, facts(), true), (&by_time, later, false), (&steady, facts(), true), (&steady, later, true)]
    {
        let outcome = signed("AKIAANN", None, |request| {
            let signer = iam.identify(request, now()).unwrap();
            signer.authorize(&Asked { action: "execute-api:Invoke", api: &api, path, policy: None, request: &then })
        });
        assert_eq!(outcome.is_ok(), is_allowed);
    }
    let key = |iam: &Iam| iam.keys["AKIAANN"].decided.lock().len();
    assert_eq!((key(&steady), key(&by_time)), (1, 0));
}

#[test]
fn what_is_kept_of_decisions_is_bounded() {
    let iam = iam(vec![allow("*", "*")]);
    for n in 0..DECISIONS * 3 {
        assert_eq!(ask(&iam, "AKIAANN", MANAGE, &format!("prod/POST/@groups/{n}"), None), Ok(()));
        assert!(iam.keys["AKIAANN"].decided.lock().len() <= DECISIONS);
    }
}

#[test]
fn no_secret_is_printed() {
    let text = format!("{:?}", iam(vec![]));
    assert!(text.contains("AKIAANN") && !text.contains("wJalr") && !text.contains("TOKEN"), "{text}");
}

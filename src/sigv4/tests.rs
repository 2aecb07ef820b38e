//! Public vectors of the signing process, and ours of the specification.

use super::*;
use crate::clock::EpochMillis;

pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

pub(super) fn credentials(access_key: &str, token: Option<&str>) -> Credentials {
    Credentials { access_key: access_key.to_owned(), secret: SECRET.into(), session_token: token.map(Secret::from) }
}

/// The value of the `authorization` header of a signed request.
fn authorization(
    credentials: &Credentials,
    scope: Scope<'_>,
    stamp: &str,
    request: &Request<'_>,
    body: &[u8],
) -> String {
    let time = EpochMillis::from_basic_iso(stamp).unwrap();
    let added = sign(credentials, &DerivedKeys::default(), scope, request, body, time);
    assert!(added.contains(&("x-amz-date", stamp.to_owned())));
    added.into_iter().find(|(name, _)| *name == "authorization").unwrap().1
}

/// The service's own test suite for signers, named as there.
#[test]
fn the_public_suite_is_signed_as_published() {
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (path, query) = (format!("/{unreserved}"), format!("{unreserved}={unreserved}"));
    type Headers = &'static [(&'static str, &'static str)];
    let form: Headers = &[("Content-Type", "application/x-www-form-urlencoded")];
    let twice: Headers = &[("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")];
    let trimmed: Headers = &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")];
    for (name, method, path, query, headers, body, signature) in [
        (
            "get-vanilla",
            "GET",
            "/",
            "",
            &[] as Headers,
            "",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        ("post-vanilla", "POST", "/", "", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "get-vanilla-query-order-key-case",
            "GET",
            "/",
            "Param2=value2&Param1=value1",
            &[],
            "",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-unreserved",
            "GET",
            &path,
            "",
            &[],
            "",
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "get-vanilla-query-unreserved",
            "GET",
            "/",
            &query,
            &[],
            "",
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "get-header-key-duplicate",
            "GET",
            "/",
            "",
            twice,
            "",
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "get-header-value-trim",
            "GET",
            "/",
            "",
            trimmed,
            "",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            "/",
            "",
            form,
            "Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ] {
        let mut all = vec![("Host", "example.amazonaws.com")];
        all.extend_from_slice(headers);
        let request = Request { method, path, query, headers: &all };
        let scope = Scope { region: "us-east-1", service: "service" };
        let signed =
            authorization(&credentials("AKIDEXAMPLE", None), scope, "20150830T123600Z", &request, body.as_bytes());
        assert!(
            signed.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
            ),
            "{name}: {signed}"
        );
        assert!(signed.ends_with(&format!(", Signature={signature}")), "{name}: {signed}");
    }
}

/// Signed by botocore 1.43.11 for the same request.
#[test]
fn an_invocation_is_signed_as_an_sdk_signs_it() {
    let request = Request {
        method: "POST",
        path: "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Achat/invocations",
        query: "Qualifier=live",
        headers: &[
            ("host", "lambda.eu-west-1.amazonaws.com"),
            ("Content-Type", "application/json"),
            ("X-Amz-Invocation-Type", "RequestResponse"),
            ("User-Agent", "is left out, as is"),
            ("X-Amzn-Trace-Id", "Root=1-5fb11db2-0cedbd927fcf897126a48be5"),
        ],
    };
    let credentials = credentials("AKIDEXAMPLE", Some("TOKENabc=="));
    let scope = Scope { region: "eu-west-1", service: "lambda" };
    let body = br#"{"k":1}"#;
    assert_eq!(
        authorization(&credentials, scope, "20240312T190358Z", &request, body),
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240312/eu-west-1/lambda/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token, \
         Signature=b6ee16b5f3c8287ce558cd9802b782156d9018b59b9b81ef5fc1163358b729cc"
    );
    let time = EpochMillis::from_basic_iso("20240312T190358Z").unwrap();
    let added = sign(&credentials, &DerivedKeys::default(), scope, &request, body, time);
    assert!(added.contains(&("x-amz-security-token", "TOKENabc==".to_owned())));
}

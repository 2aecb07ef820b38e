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

type Headers = &'static [(&'static str, &'static str)];

/// The service's own test suite for signers, named as there.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_public_suite_is_signed_as_published() {
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (path, query) = (format!("/{unreserved}"), format!("{unreserved}={unreserved}"));
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

// --- Checking ---

const EXECUTE_API: Scope<'_> = Scope { region: "us-east-1", service: "execute-api" };
const HOST: &str = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
const STAMP: &str = "20240312T190358Z";
const MINUTE: u64 = 60_000;

fn now() -> EpochMillis {
    EpochMillis::from_basic_iso(STAMP).unwrap()
}

/// Reads and checks, as whoever holds the secret does.
fn verify_with(secret: &str, request: &Request<'_>, body: &[u8], hosts: &[Box<str>]) -> Result<(), Refused> {
    let claim = Claim::read(request, EXECUTE_API)?;
    claim.check(request, now())?;
    let (secret, keys) = (Secret::new(secret), DerivedKeys::default());
    claim.verify(request, body, &Expected { secret: &secret, keys: &keys, scope: EXECUTE_API, hosts })
}

fn verify(request: &Request<'_>, body: &[u8]) -> Result<(), Refused> {
    verify_with(SECRET, request, body, &[])
}

fn header(access_key: &str, signed: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={access_key}/20240312/us-east-1/execute-api/aws4_request, SignedHeaders={signed}, \
         Signature={signature}"
    )
}

/// V1 to V4 of REST specification 7.6.
#[test]
fn the_vectors_of_the_specification_verify() {
    let v1 =
        header("AKIDEXAMPLE", "host;x-amz-date", "9bce1f60b01ff22f488d881239adafa775c81cebd9b10295d0aafa9e484adc12");
    let headers = [("Host", HOST), ("X-Amz-Date", STAMP), ("Authorization", v1.as_str())];
    let pets = Request { method: "GET", path: "/prod/pets", query: "", headers: &headers };
    assert_eq!(verify(&pets, b""), Ok(()));

    let v2 = header(
        "AKIDEXAMPLE",
        "content-type;host;x-amz-date",
        "875c76cef7290229390b20004f3fc9fda36a113f770a9dfc9459bd9af0400fe8",
    );
    let headers =
        [("Host", HOST), ("X-Amz-Date", STAMP), ("Content-Type", "application/json"), ("Authorization", v2.as_str())];
    let post = Request { method: "POST", path: "/prod/pets/a%20b", query: "q=x%20y&a=1", headers: &headers };
    assert_eq!(verify(&post, br#"{"name":"rex"}"#), Ok(()));

    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20240312%2Fus-east-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20240312T190358Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=f4f4ae5499e9e48e1241e06174f4105979d12bd6a813d9757ebe89ec00e98d8e";
    let presigned = Request { method: "GET", path: "/prod/pets", query, headers: &[("host", HOST)] };
    assert_eq!(verify(&presigned, b""), Ok(()));

    let v4 = header(
        "ASIAEXAMPLE",
        "host;x-amz-date;x-amz-security-token",
        "8a97c1010fbaf7324ee5282629a3e784901039c41b7ddbb9a544186be445f776",
    );
    let headers =
        [("Host", HOST), ("X-Amz-Date", STAMP), ("X-Amz-Security-Token", "TOKENabc=="), ("Authorization", v4.as_str())];
    let with_token = Request { method: "GET", path: "/prod/pets", query: "", headers: &headers };
    assert_eq!(verify(&with_token, b""), Ok(()));
    let claim = Claim::read(&with_token, EXECUTE_API).unwrap();
    assert_eq!((claim.access_key(), claim.token()), ("ASIAEXAMPLE", Some("TOKENabc==")));
}

/// A request signed by ours, with its owned parts, for tests that change one of them.
#[derive(Debug, Clone)]
struct Signed {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Signed {
    fn new(method: &str, path: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut all = vec![("host", HOST)];
        all.extend_from_slice(headers);
        let request = Request { method, path, query, headers: &all };
        let credentials = credentials("AKIDEXAMPLE", None);
        let added = sign(&credentials, &DerivedKeys::default(), EXECUTE_API, &request, body, now());
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut headers: Vec<_> = all.into_iter().map(owned).collect();
        headers.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Self { method: method.into(), path: path.into(), query: query.into(), headers, body: body.to_vec() }
    }

    fn verify_with(&self, hosts: &[Box<str>]) -> Result<(), Refused> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request = Request { method: &self.method, path: &self.path, query: &self.query, headers: &headers };
        verify_with(SECRET, &request, &self.body, hosts)
    }

    fn verify(&self) -> Result<(), Refused> {
        self.verify_with(&[])
    }

    fn set(&mut self, name: &str, value: &str) {
        let (_, text) = self.headers.iter_mut().find(|(n, _)| n == name).unwrap();
        value.clone_into(text);
    }
}

fn push() -> Signed {
    let path = "/prod/@connections/L0SM9cOFvHcCIhw%3D";
    Signed::new("POST", path, "", &[("content-type", "text/plain"), ("x-amz-meta", "a")], b"hello")
}

fn is_mismatch(result: &Result<(), Refused>) -> bool {
    matches!(result, Err(Refused::Invalid(message)) if message.starts_with("The request signature we calculated"))
}

// checklist: 214
#[test]
fn a_path_may_be_encoded_once_or_twice_before_it_is_signed() {
    assert_eq!(push().verify(), Ok(()), "twice: %253D");
    // Signed over `%3D` and `%40`, as some signers do.
    let canonical =
        "POST\n/prod/%40connections/L0SM9cOFvHcCIhw%3D\n\nhost:h\nx-amz-date:20240312T190358Z\n\nhost;x-amz-date\n";
    let canonical = format!("{canonical}{}", sha256(b"hello"));
    let text = format!(
        "AWS4-HMAC-SHA256\n{STAMP}\n20240312/us-east-1/execute-api/aws4_request\n{}",
        sha256(canonical.as_bytes())
    );
    let signature = SigningKey::derive(&SECRET.into(), "20240312", EXECUTE_API).sign(&text);
    let authorization = header("AKIDEXAMPLE", "host;x-amz-date", &signature);
    let headers = [("host", "h"), ("x-amz-date", STAMP), ("authorization", authorization.as_str())];
    for path in [
        "/prod/@connections/L0SM9cOFvHcCIhw%3D",
        "/prod/%40connections/L0SM9cOFvHcCIhw=",
        "//prod/@connections//L0SM9cOFvHcCIhw=",
    ] {
        let request = Request { method: "POST", path, query: "", headers: &headers };
        assert_eq!(verify(&request, b"hello"), Ok(()), "{path}");
    }
    // Encoded once, this one would read like the first one encoded twice.
    for path in [
        "/prod/@connections/L0SM9cOFvHcCIhw%253D",
        "/prod/x/../@connections/L0SM9cOFvHcCIhw=",
        "/prod/./@connections/L0SM9cOFvHcCIhw=",
    ] {
        let request = Request { method: "POST", path, query: "", headers: &headers };
        assert!(is_mismatch(&verify(&request, b"hello")), "{path}");
    }
    let mut twice = push();
    twice.path = "/prod/@connections/L0SM9cOFvHcCIhw%253D".into();
    assert!(is_mismatch(&twice.verify()));
}

#[test]
fn another_body_method_or_secret_is_refused() {
    let mut other = push();
    other.body = b"hellO".to_vec();
    assert!(is_mismatch(&other.verify()));
    let mut other = push();
    other.method = "DELETE".into();
    assert!(is_mismatch(&other.verify()));
    let signed = push();
    let headers: Vec<(&str, &str)> = signed.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let request = Request { method: "POST", path: &signed.path, query: "", headers: &headers };
    let refused = verify_with("another secret", &request, b"hello", &[]);
    let Err(Refused::Invalid(message)) = &refused else { panic!("{refused:?}") };
    assert!(message.contains("The Canonical String for this request should have been\n'POST\n/prod/%40connections/"));
    assert!(message.contains("The String-to-Sign should have been\n'AWS4-HMAC-SHA256\n20240312T190358Z\n"));
}

#[test]
fn a_body_is_what_was_hashed_or_nothing() {
    let hash = sha256(b"hello");
    let said = |text: &str| {
        let headers = [("x-amz-content-sha256", text)];
        let mut signed = Signed::new("POST", "/prod/@all", "", &headers, b"hello");
        (signed.verify(), {
            signed.body = b"other".to_vec();
            signed.verify()
        })
    };
    let (right, other) = said(&hash);
    assert_eq!(right, Ok(()));
    assert!(is_mismatch(&other));
    for text in [UNSIGNED_PAYLOAD, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", "e3b0"] {
        assert!(is_mismatch(&said(text).0), "{text}");
    }
}

#[test]
fn a_host_of_another_name_counts_only_as_configured() {
    let mut behind = push();
    behind.set("host", "10.0.0.7:8080");
    assert!(is_mismatch(&behind.verify()));
    assert_eq!(behind.verify_with(&["other.example".into(), HOST.into()]), Ok(()));
    let mut with_port = push();
    with_port.set("host", &format!("{HOST}:443"));
    assert_eq!(with_port.verify(), Ok(()), "the port that the scheme implies");
    with_port.set("host", &format!("{HOST}:8443"));
    assert!(is_mismatch(&with_port.verify()));
}

/// Rows 1 to 7 and 11 of REST specification 7.7.
#[test]
fn what_is_no_whole_signature_is_told_what_it_lacks() {
    let refused = |authorization: Option<&str>, query: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("host", HOST)];
        headers.extend(authorization.map(|text| ("authorization", text)));
        headers.extend_from_slice(more);
        verify(&Request { method: "GET", path: "/prod", query, headers: &headers }, b"").unwrap_err()
    };
    let date = [("x-amz-date", STAMP)];
    assert_eq!(refused(None, "", &date), Refused::Unsigned);
    assert_eq!(refused(None, "X-Amz-Signature=0", &date), Refused::Unsigned);
    assert_eq!(
        refused(Some("Bearer x"), "", &date),
        Refused::Incomplete(
            "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with \
             Base64): 'uTem/WB082UJMN2ajD6lH6UChGpTAddMJSx2iu923No='."
                .into()
        )
    );
    let incomplete = |refused: Refused| match refused {
        Refused::Incomplete(message) => message,
        Refused::Unsigned | Refused::Invalid(_) | Refused::UnknownKey | Refused::ExpiredToken => panic!("{refused:?}"),
    };
    let message = incomplete(refused(Some("AWS4-HMAC-SHA256 Foo=1"), "", &[]));
    assert!(message.starts_with(
        "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. \
         Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a \
         'X-Amz-Date' or a 'Date' header. (Hashed"
    ), "{message}");
    let message = incomplete(refused(None, "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders=host", &[]));
    assert_eq!(
        message,
        "AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string parameters must include \
         'X-Amz-Signature'. AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters."
    );
    let scoped = |scope: &str, date: &str| {
        let text = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=00");
        refused(Some(&text), "", &[("x-amz-date", date)])
    };
    assert_eq!(
        scoped("AKID/20240312/us-east-1", STAMP),
        Refused::Incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKID/20240312/us-east-1'".into())
    );
    assert_eq!(
        scoped("AKID/20240311/eu-west-9/s3/aws5", STAMP),
        Refused::Invalid("Credential should be scoped to a valid region, not 'eu-west-9'. Credential should be scoped to correct service: 'execute-api'. Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5'. Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20240311' != '20240312', from '20240312T190358Z'. ".into())
    );
    assert_eq!(
        scoped("AKID/20240312/us-east-1/execute-api/aws4_request", "yesterday"),
        Refused::Incomplete(
            "Date must be in ISO-8601 'basic format'. Got 'yesterday'. See http://en.wikipedia.org/wiki/ISO_8601"
                .into()
        )
    );
    let unsigned_host = header("AKIDEXAMPLE", "x-amz-date", "00");
    assert_eq!(
        refused(Some(&unsigned_host), "", &date),
        Refused::Invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".into())
    );
    let unsigned_extra = header("AKIDEXAMPLE", "host;x-amz-date", "00");
    assert_eq!(
        refused(Some(&unsigned_extra), "", &[("x-amz-date", STAMP), ("X-Amz-Target", "a")]),
        Refused::Invalid("'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.".into())
    );
}

#[test]
fn a_request_signed_twice_is_refused() {
    let signed = push();
    let mut both = signed.clone();
    both.query = "X-Amz-Algorithm=AWS4-HMAC-SHA256".into();
    assert!(is_mismatch(&both.verify()));
    for name in ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"] {
        let mut twice = signed.clone();
        twice.headers.extend([(name.to_owned(), "a".to_owned()), (name.to_owned(), "b".to_owned())]);
        assert!(twice.verify().is_err(), "{name}");
    }
    let mut twice = signed.clone();
    let (_, text) = twice.headers.iter_mut().find(|(n, _)| n == "authorization").unwrap();
    text.push_str(", Signature=00");
    assert!(is_mismatch(&twice.verify()));
    for list in ["x-amz-date;host", "host;host;x-amz-date", "Host;x-amz-date", "host;;x-amz-date", "host; x-amz-date"] {
        let mut odd = signed.clone();
        odd.set("authorization", &header("AKIDEXAMPLE", list, "00"));
        assert!(odd.verify().is_err(), "{list}");
    }
}

// checklist: 251
#[test]
fn a_signature_counts_for_five_minutes_or_as_long_as_it_says() {
    let in_query = |expires: &str| {
        format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20240312%2Fus-east-1%2Fexecute-api%2Faws4_request&X-Amz-Date={STAMP}{expires}&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        )
    };
    let check = |query: &str, at: u64| {
        let request = Request { method: "GET", path: "/prod", query, headers: &[("host", HOST)] };
        Claim::read(&request, EXECUTE_API).and_then(|claim| claim.check_time(EpochMillis(at)))
    };
    let signed = now().0;
    for (expires, life) in [
        ("", 5 * MINUTE),
        ("&X-Amz-Expires=300", 5 * MINUTE),
        ("&X-Amz-Expires=30", 30_000),
        ("&X-Amz-Expires=604800", 604_800_000),
    ] {
        let query = in_query(expires);
        for at in [signed, signed + life, signed - 5 * MINUTE] {
            assert_eq!(check(&query, at), Ok(()), "{expires} {at}");
        }
        assert!(
            check(&query, signed + life + 1).is_err() && check(&query, signed - 5 * MINUTE - 1).is_err(),
            "{expires}"
        );
    }
    assert_eq!(
        check(&in_query(""), signed + 6 * MINUTE),
        Err(Refused::Invalid(
            "Signature expired: 20240312T190358Z is now earlier than 20240312T190458Z (20240312T190958Z - 5 min.)"
                .into()
        ))
    );
    assert_eq!(
        check(&in_query(""), signed - 6 * MINUTE),
        Err(Refused::Invalid("Signature not yet current: 20240312T190358Z is still later than 20240312T190258Z (20240312T185758Z + 5 min.)".into()))
    );
    for wrong in ["0", "604801", "-1", "+5", "x", "", "99999999999999999999"] {
        assert!(
            matches!(check(&in_query(&format!("&X-Amz-Expires={wrong}")), signed), Err(Refused::Incomplete(_))),
            "{wrong}"
        );
    }
}

#[test]
fn a_session_token_is_not_repeated() {
    let key = SigningKey::derive(&"another".into(), "20240312", EXECUTE_API);
    let authorization = header("ASIAEXAMPLE", "host;x-amz-date;x-amz-security-token", &key.sign(""));
    let headers = [
        ("host", HOST),
        ("x-amz-date", STAMP),
        ("x-amz-security-token", "s3cr/t+token"),
        ("authorization", &authorization),
    ];
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAEXAMPLE%2F20240312%2Fus-east-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20240312T190358Z&X-Amz-Security-Token=s3cr%2Ft%2Btoken&X-Amz-SignedHeaders=host&X-Amz-Signature=00";
    for (query, headers) in [("", &headers[..]), (query, &headers[..1])] {
        let refused = verify(&Request { method: "GET", path: "/prod", query, headers }, b"");
        assert!(is_mismatch(&refused));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("***") && !message.contains("s3cr"), "{message}");
    }
}

// --- Properties ---

use proptest::prelude::*;

proptest! {
    /// Whatever part of a canonical request is cut out, doubled or moved, the signature is another.
    #[test]
    fn a_canonical_request_cut_or_reordered_in_any_way_fails(from in 0_usize..400, length in 1_usize..80, to in 0_usize..400) {
        let signed = push();
        let headers: Vec<(&str, &str)> = signed.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request = Request { method: "POST", path: &signed.path, query: "a=1&b=2", headers: &headers };
        let payload = sha256(b"hello");
        let whole = canonical::request(&request, &canonical::Parts {
            path: &canonical::path(request.path, canonical::PathForm::Twice),
            query: &canonical::query(request.query, &[]),
            signed_headers: "content-type;host;x-amz-date;x-amz-meta",
            host: None,
            payload: &payload,
        });
        let key = SigningKey::derive(&SECRET.into(), "20240312", EXECUTE_API);
        let signature = |text: &str| key.sign(&canonical::string_to_sign(STAMP, "20240312/us-east-1/execute-api/aws4_request", text));
        let from = from % whole.len();
        let end = (from + length).min(whole.len());
        let (cut, rest) = (&whole[from..end], format!("{}{}", &whole[..from], &whole[end..]));
        let at = to % (rest.len() + 1);
        let moved = format!("{}{cut}{}", &rest[..at], &rest[at..]);
        let doubled = format!("{}{cut}{}", &whole[..from], &whole[from..]);
        for other in [&rest, &moved, &doubled] {
            if *other != whole {
                prop_assert_ne!(signature(other), signature(&whole));
            }
        }
    }

    /// One byte of a signed request that is another, in any part of it that has a meaning, and it is refused.
    #[test]
    fn a_byte_changed_anywhere_is_refused(part in 0_usize..6, at in 0_usize..400, byte in 0x21_u8..0x7f) {
        let mut signed = Signed::new(
            "POST", "/prod/@groups/room%201", "after=x&limit=5",
            &[("content-type", "text/plain"), ("x-amz-meta", "abc")], b"hello",
        );
        prop_assert_eq!(signed.verify(), Ok(()));
        let text = match part {
            0 => &mut signed.method,
            1 => &mut signed.path,
            2 => &mut signed.query,
            n => &mut signed.headers.get_mut(n - 3).unwrap().1,
        };
        let at = at % text.len();
        let before = text.clone();
        text.replace_range(at..=at, &char::from(byte).to_string());
        let is_same_meaning = *text == before
            // `%31` is `1`, and `&` at an end stands for nothing.
            || part == 2 && canonical::query(text, &[]) == canonical::query(&before, &[]);
        prop_assume!(!is_same_meaning);
        prop_assert!(signed.verify().is_err());
    }

    /// Garbage is refused without a panic, whatever it is.
    #[test]
    fn garbage_is_refused(authorization in ".{0,300}", query in ".{0,300}", date in ".{0,20}") {
        let headers = [("host", HOST), ("x-amz-date", date.as_str()), ("authorization", authorization.as_str())];
        let request = Request { method: "GET", path: "/%", query: &query, headers: &headers };
        prop_assert!(verify(&request, b"").is_err());
        let request = Request { method: "GET", path: "", query: &format!("X-Amz-Algorithm=AWS4-HMAC-SHA256&{query}"), headers: &headers[..1] };
        prop_assert!(verify(&request, b"").is_err());
    }
}

//! An endpoint that speaks the Invoke API as Lambda does: it checks every signature by working it out for itself, knows its
//! functions, and writes their failures as the service does.

use std::fmt::Write as _;

use causeway::config::Settings;
use causeway::secret::Secret;
use causeway::sigv4::Credentials;
use causeway::upstream::LambdaConfig;
use causeway::upstream::credentials::Sources;
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::{Backend, Recorded, Reply};

const ACCESS_KEY: &str = "ASIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "a/session+token==";
const REGION: &str = "us-east-1";

/// Functions behind the Invoke API.
#[derive(Debug)]
pub(crate) struct Functions {
    backend: Backend,
}

/// An answer of `AWS_PROXY` that says yes.
pub(crate) fn accepted() -> Value {
    json!({"statusCode": 200})
}

impl Functions {
    pub(crate) async fn start() -> Self {
        let backend = Backend::start().await;
        backend.on_each("*", |request| refusal(request).unwrap_or_else(|| error(404, "ResourceNotFoundException")));
        Self { backend }
    }

    /// Makes a gateway call its functions here.
    pub(crate) fn settings(&self) -> impl FnOnce(&mut Settings) + 'static {
        let endpoint = self.backend.url().parse().unwrap();
        move |settings| {
            let credentials = Credentials {
                access_key: ACCESS_KEY.to_owned(),
                secret: Secret::new(SECRET),
                session_token: Some(Secret::new(TOKEN)),
            };
            settings.lambda = LambdaConfig {
                endpoint: Some(endpoint),
                region: Some(REGION.to_owned()),
                credentials: Sources { environment: Some(credentials), ..Sources::default() },
            };
        }
    }

    /// A function that returns the same whatever it gets.
    pub(crate) fn returns(&self, name: &str, value: &Value) -> &Self {
        let value = value.clone();
        self.runs(name, move |_| value.clone())
    }

    /// A function.
    pub(crate) fn runs(&self, name: &str, run: impl Fn(&Value) -> Value + Send + Sync + 'static) -> &Self {
        self.replies(name, move |event| Reply::ok(run(event).to_string()))
    }

    /// A function that throws.
    pub(crate) fn throws(&self, name: &str, message: &str) -> &Self {
        let failure = json!({"errorMessage": message, "errorType": "Error", "trace": ["Error: it threw"]});
        self.replies(name, move |_| Reply::ok(failure.to_string()).header("X-Amz-Function-Error", "Unhandled"))
    }

    /// Whatever the endpoint says to a call that it takes.
    pub(crate) fn replies(&self, name: &str, reply: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> &Self {
        self.backend.on_each(&path(name), move |request| {
            if let Some(refusal) = refusal(request) {
                return refusal;
            }
            let Ok(event) = serde_json::from_slice(&request.body) else {
                return error(400, "InvalidRequestContentException");
            };
            match request.header("X-Amz-Invocation-Type") {
                Some("Event") => Reply::status(202).header("x-amzn-RequestId", "taken"),
                Some("RequestResponse") => reply(&event)
                    .header("X-Amz-Executed-Version", "$LATEST")
                    .header("x-amzn-RequestId", "served")
                    .header("Content-Type", "application/json"),
                _ => error(400, "InvalidParameterValueException"),
            }
        });
        self
    }

    /// The next call of a function that the test has not looked at.
    pub(crate) async fn call(&self, name: &str) -> Recorded {
        self.backend.request(&path(name)).await
    }

    /// The event of the next call.
    pub(crate) async fn event(&self, name: &str) -> Value {
        serde_json::from_slice(&self.call(name).await.body).unwrap()
    }

    /// Calls of a function so far.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.backend.of(&path(name)).len()
    }

    /// Asserts that a function is not called again.
    pub(crate) async fn no_more(&self, name: &str) {
        self.backend.no_more(&path(name)).await;
    }
}

fn path(name: &str) -> String {
    format!("/2015-03-31/functions/{name}/invocations")
}

/// An error of the Invoke API.
pub(crate) fn error(status: u16, kind: &str) -> Reply {
    Reply::status(status)
        .header("x-amzn-ErrorType", kind)
        .header("Content-Type", "application/json")
        .body(json!({"Type": "User", "Message": format!("{kind} it is")}).to_string())
}

/// What is said to a call that is not one, or is not signed as it must be.
fn refusal(request: &Recorded) -> Option<Reply> {
    if request.method != "POST" {
        return Some(error(405, "MethodNotAllowed"));
    }
    match signature_fault(request) {
        None => None,
        Some(why) => {
            let body = json!({"message": why}).to_string();
            Some(Reply::status(403).header("x-amzn-ErrorType", "InvalidSignatureException").body(body))
        }
    }
}

/// What is wrong with a signature; works it out from the request as it arrived.
fn signature_fault(request: &Recorded) -> Option<String> {
    let authorization = request.header("Authorization").and_then(|text| text.strip_prefix("AWS4-HMAC-SHA256 "));
    let Some(authorization) = authorization else { return Some("not signed".to_owned()) };
    let part = |name: &str| {
        authorization.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let stamp = request.header("X-Amz-Date").unwrap_or_default();
    let date = stamp.get(..8).unwrap_or_default();
    let scope = format!("{date}/{REGION}/lambda/aws4_request");
    if part("Credential") != format!("{ACCESS_KEY}/{scope}") {
        return Some(format!("another scope: {}", part("Credential")));
    }
    if request.header("X-Amz-Security-Token") != Some(TOKEN) {
        return Some("no session token".to_owned());
    }
    let signed: Vec<&str> = part("SignedHeaders").split(';').collect();
    let steers = |name: &str| name == "host" || (name.starts_with("x-amz-") && name != "x-amzn-trace-id");
    let unsigned = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    if let Some(name) = unsigned.filter(|name| steers(name)).find(|name| !signed.contains(&name.as_str())) {
        return Some(format!("{name} is not signed"));
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    // Each segment is encoded once more: all that is left to encode in it are the percent signs.
    let mut canonical = format!("POST\n{}\n{query}\n", path.replace('%', "%25"));
    for name in &signed {
        let _infallible = writeln!(canonical, "{name}:{}", request.header(name).unwrap_or_default().trim());
    }
    let _infallible = write!(canonical, "\n{}\n{}", signed.join(";"), sha256(&request.body));
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for text in [date, REGION, "lambda", "aws4_request"] {
        key = mac(&key, text);
    }
    (part("Signature") != hex(&mac(&key, &to_sign))).then(|| format!("the signature differs for {canonical}"))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

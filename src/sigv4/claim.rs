//! What a request says about its signature: who, for what, when, and which headers count. Nothing is proven yet.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::{ALGORITHM, Refused, Request, Scope, TERMINATOR};
use crate::clock::EpochMillis;

/// Longest `Authorization` header read: many times what is needed.
const MAX_AUTHORIZATION: usize = 4_096;
/// Most headers a signature may name; a request has no more than a hundred.
const MAX_SIGNED_HEADERS: usize = 100;
/// Longest piece of a request repeated in an answer.
const MAX_SHOWN: usize = 128;
/// How far a request's clock may be off, in milliseconds (specification 6.5.6).
const SKEW: u64 = 5 * 60 * 1_000;
/// Longest life of a signed address, in seconds (REST specification 7.6).
const MAX_EXPIRES: u64 = 7 * 24 * 60 * 60;

/// Where a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the `Authorization` header.
    Header,
    /// In the query: a signed address. How long it lives in seconds, when it says so.
    Query(Option<u64>),
}

/// A signature, read and not proven.
#[derive(Debug)]
pub struct Claim<'a> {
    pub(super) form: Form,
    access_key: Cow<'a, str>,
    /// `date/region/service/aws4_request`.
    pub(super) scope: String,
    /// As signed: lower case, sorted, `;` between.
    pub(super) signed_headers: Cow<'a, str>,
    pub(super) signature: Cow<'a, str>,
    pub(super) stamp: Cow<'a, str>,
    time: EpochMillis,
    token: Option<Cow<'a, str>>,
}

impl<'a> Claim<'a> {
    /// Reads what `request` says, and whether it is meant for `scope`.
    ///
    /// # Errors
    /// [`Refused::Unsigned`] when it says nothing, and everything that can be seen without knowing the caller and the time:
    /// rows 1 to 7 of REST specification 7.7.
    pub fn read(request: &Request<'a>, scope: Scope<'_>) -> Result<Self, Refused> {
        let header = request.only("authorization").map_err(|()| Refused::mismatch())?;
        let query = Parameters::of(request.query);
        let given = match (header, query.is_signed) {
            (None, false) => return Err(Refused::Unsigned),
            (Some(_), true) => return Err(Refused::mismatch()),
            (Some(header), false) => in_header(request, header)?,
            (None, true) => in_query(query)?,
        };
        given.scoped(scope)
    }

    /// The key the caller claims to have.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The session token that came along.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The day the key is derived for: `YYYYMMDD`.
    pub(super) fn date(&self) -> &str {
        self.scope.get(..8).unwrap_or_default()
    }

    /// Whether it is of now, and covers what it must.
    ///
    /// # Errors
    /// [`Refused::Invalid`], rows 10 and 11.
    pub fn check(&self, request: &Request<'_>, now: EpochMillis) -> Result<(), Refused> {
        self.check_time(now)?;
        self.check_signed_headers(request)
    }

    /// Whether it is neither too old nor too new.
    pub(super) fn check_time(&self, now: EpochMillis) -> Result<(), Refused> {
        let life = match self.form {
            Form::Header | Form::Query(None) => SKEW,
            Form::Query(Some(seconds)) => seconds * 1_000,
        };
        let stamp = &self.stamp;
        if now.since(self.time) > life {
            let (bound, life) = (EpochMillis(now.0.saturating_sub(life)).to_basic_iso(), in_words(life));
            let now_text = now.to_basic_iso();
            return Err(Refused::Invalid(format!(
                "Signature expired: {stamp} is now earlier than {bound} ({now_text} - {life}.)"
            )));
        }
        if self.time.since(now) > SKEW {
            let (bound, skew) = (EpochMillis(now.0 + SKEW).to_basic_iso(), in_words(SKEW));
            let now_text = now.to_basic_iso();
            return Err(Refused::Invalid(format!(
                "Signature not yet current: {stamp} is still later than {bound} ({now_text} + {skew}.)"
            )));
        }
        Ok(())
    }

    /// The host must be signed, and whatever else the service would heed. Two spellings of one list would be two
    /// signatures for one request, so there is one: lower case, sorted, each name once.
    fn check_signed_headers(&self, request: &Request<'_>) -> Result<(), Refused> {
        let names: Vec<&str> = self.signed_headers.split(';').collect();
        let is_one = |name: &&str| !name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase() || b <= b' ');
        let is_sorted = names.iter().zip(names.iter().skip(1)).all(|(name, next)| name < next);
        if names.len() > MAX_SIGNED_HEADERS || !is_sorted || !names.iter().all(is_one) {
            return Err(Refused::mismatch());
        }
        if !names.contains(&"host") {
            let message = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
            return Err(Refused::Invalid(message.to_owned()));
        }
        let is_heeded = |name: &&str| name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
        for name in request.headers.iter().map(|(name, _)| *name).filter(is_heeded) {
            let name = name.to_ascii_lowercase();
            if !MAY_BE_ADDED.contains(&name.as_str()) && !names.contains(&name.as_str()) {
                return Err(Refused::Invalid(format!(
                    "'{}' must be a 'SignedHeader' in the AWS Authorization.",
                    shown(&name)
                )));
            }
        }
        Ok(())
    }
}

/// Headers of the service's name that need not be signed: the token is compared with the caller's own (specification
/// 8.3.2), the other one is added by a cache on the way.
const MAY_BE_ADDED: &[&str] = &["x-amz-security-token", "x-amz-cf-id"];

/// What a signature is made of, before its parts are looked at.
struct Given<'a> {
    form: Form,
    credential: Cow<'a, str>,
    signed_headers: Cow<'a, str>,
    signature: Cow<'a, str>,
    stamp: Cow<'a, str>,
    token: Option<Cow<'a, str>>,
}

impl<'a> Given<'a> {
    fn scoped(self, expected: Scope<'_>) -> Result<Claim<'a>, Refused> {
        let parts: Vec<&str> = self.credential.split('/').collect();
        let &[access_key, date, region, service, terminator] = parts.as_slice() else {
            return Err(Refused::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                shown(&self.credential)
            )));
        };
        let mut wrong = String::new();
        if region != expected.region {
            let _infallible = write!(wrong, "Credential should be scoped to a valid region, not '{}'. ", shown(region));
        }
        if service != expected.service {
            let _infallible = write!(wrong, "Credential should be scoped to correct service: '{}'. ", expected.service);
        }
        if terminator != TERMINATOR {
            let terminator = shown(terminator);
            let _infallible = write!(
                wrong,
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{terminator}'. "
            );
        }
        let day = self.stamp.get(..8).unwrap_or_default();
        let time = EpochMillis::from_basic_iso(&self.stamp);
        if time.is_some() && date != day {
            let _infallible = write!(
                wrong,
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}', \
                 from '{}'. ",
                shown(date),
                self.stamp
            );
        }
        if !wrong.is_empty() {
            return Err(Refused::Invalid(wrong));
        }
        let Some(time) = time else {
            return Err(Refused::Incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601",
                shown(&self.stamp)
            )));
        };
        Ok(Claim {
            form: self.form,
            scope: format!("{date}/{region}/{service}/{terminator}"),
            access_key: Cow::Owned(access_key.to_owned()),
            signed_headers: self.signed_headers,
            signature: self.signature,
            stamp: self.stamp,
            time,
            token: self.token,
        })
    }
}

/// The parts in an `Authorization` header.
fn in_header<'a>(request: &Request<'a>, header: &'a str) -> Result<Given<'a>, Refused> {
    let hashed = || STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, header.as_bytes()));
    let (algorithm, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    // What is no signature may be somebody's token: only its hash is repeated.
    let mut is_garbled = algorithm != ALGORITHM || header.len() > MAX_AUTHORIZATION;
    for part in rest.split(',').map(str::trim) {
        let Some((name, value)) = part.split_once('=') else {
            is_garbled = true;
            continue;
        };
        let place = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(Refused::mismatch());
        }
    }
    if is_garbled {
        return Err(Refused::Incomplete(format!(
            "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with \
             Base64): '{}'.",
            hashed()
        )));
    }
    let one = |name| request.only(name).map_err(|()| Refused::mismatch());
    let stamp = match one("x-amz-date")? {
        Some(stamp) => Some(stamp),
        None => one("date")?,
    };
    let token = one("x-amz-security-token")?;
    if let (Some(credential), Some(signed_headers), Some(signature), Some(stamp)) =
        (credential, signed_headers, signature, stamp)
    {
        return Ok(Given {
            form: Form::Header,
            credential: credential.into(),
            signed_headers: signed_headers.into(),
            signature: signature.into(),
            stamp: stamp.trim().into(),
            token: token.map(|token| token.trim().into()),
        });
    }
    let mut message = String::new();
    for (name, is_there) in [
        ("Credential", credential.is_some()),
        ("Signature", signature.is_some()),
        ("SignedHeaders", signed_headers.is_some()),
    ] {
        if !is_there {
            let _infallible = write!(message, "Authorization header requires '{name}' parameter. ");
        }
    }
    if stamp.is_none() {
        message.push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
    }
    let _infallible = write!(message, "(Hashed with SHA-256 and encoded with Base64) Authorization={}", hashed());
    Err(Refused::Incomplete(message))
}

/// The parameters of a query that speak of a signature, decoded.
#[derive(Default)]
struct Parameters<'a> {
    is_signed: bool,
    is_repeated: bool,
    algorithm: Option<Cow<'a, str>>,
    credential: Option<Cow<'a, str>>,
    date: Option<Cow<'a, str>>,
    expires: Option<Cow<'a, str>>,
    signed_headers: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Self {
        let mut found = Self::default();
        for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let name = percent_decode_str(name).decode_utf8_lossy();
            let place = match &*name {
                "X-Amz-Algorithm" => &mut found.algorithm,
                "X-Amz-Credential" => &mut found.credential,
                "X-Amz-Date" => &mut found.date,
                "X-Amz-Expires" => &mut found.expires,
                "X-Amz-SignedHeaders" => &mut found.signed_headers,
                "X-Amz-Signature" => &mut found.signature,
                "X-Amz-Security-Token" => &mut found.token,
                _ => continue,
            };
            found.is_repeated |= place.replace(percent_decode_str(value).decode_utf8_lossy()).is_some();
        }
        found.is_signed = found.algorithm.is_some();
        found
    }
}

/// The parts in a query.
fn in_query(query: Parameters<'_>) -> Result<Given<'_>, Refused> {
    if query.is_repeated {
        return Err(Refused::mismatch());
    }
    if query.algorithm.as_deref() != Some(ALGORITHM) {
        return Err(Refused::Incomplete(format!(
            "AWS query-string parameters must include 'X-Amz-Algorithm' {ALGORITHM}."
        )));
    }
    let expires = match query.expires.as_deref() {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) if (1..=MAX_EXPIRES).contains(&seconds) && text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(seconds)
            }
            Ok(_) | Err(_) => {
                return Err(Refused::Incomplete(format!(
                    "X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES}, got '{}'",
                    shown(text)
                )));
            }
        },
    };
    let mut message = String::new();
    for (name, is_there) in [
        ("X-Amz-Credential", query.credential.is_some()),
        ("X-Amz-Signature", query.signature.is_some()),
        ("X-Amz-SignedHeaders", query.signed_headers.is_some()),
        ("X-Amz-Date", query.date.is_some()),
    ] {
        if !is_there {
            let _infallible = write!(message, "AWS query-string parameters must include '{name}'. ");
        }
    }
    let (Some(credential), Some(signature), Some(signed_headers), Some(stamp)) =
        (query.credential, query.signature, query.signed_headers, query.date)
    else {
        message.push_str("Re-examine the query-string parameters.");
        return Err(Refused::Incomplete(message));
    };
    Ok(Given { form: Form::Query(expires), credential, signed_headers, signature, stamp, token: query.token })
}

/// The beginning of a text that a stranger sent, fit for an answer.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `5 min`, or seconds where it is no whole number of minutes.
fn in_words(millis: u64) -> String {
    let seconds = millis / 1_000;
    if seconds.is_multiple_of(60) { format!("{} min", seconds / 60) } else { format!("{seconds} sec") }
}

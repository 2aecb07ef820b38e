//! What Redis says when it refuses, in words of the [`Registry`](crate::cluster::registry::Registry).

use redis::ServerError;

use super::address::Target;
use crate::cluster::registry::RegistryError;

/// Longest part of a foreign value or of Redis's own words that is shown.
const SHOWN: usize = 160;

/// What a refusal means for one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This is not the server to ask any more: another is the master.
    Elsewhere,
    /// Under a key stands a value of another type.
    WrongType,
    /// The script is not there: it was flushed, or the server is new.
    NoScript,
    /// What [`refused`] makes of it.
    Final,
}

/// Sorts a refusal.
pub(super) fn sort(error: &ServerError) -> Refusal {
    match error.code() {
        "NOSCRIPT" => Refusal::NoScript,
        "READONLY" | "MASTERDOWN" | "LOADING" => Refusal::Elsewhere,
        "WRONGTYPE" => Refusal::WrongType,
        "ERR" if said(error).contains("WRONGTYPE") => Refusal::WrongType,
        "ERR" if said(error).contains("READONLY") => Refusal::Elsewhere,
        _ => Refusal::Final,
    }
}

/// What a server's refusal of a command means. `key` names the key that a script found something foreign under, by its
/// number.
pub(super) fn refused(error: &ServerError, key: impl Fn(usize) -> String) -> RegistryError {
    let words = said(error);
    // Before Redis 7 an error inside a script was wrapped into one that begins with ERR.
    let within = |code: &str| error.code() == "ERR" && words.contains(code);
    let is = |code: &str| error.code() == code || within(code);
    if error.code() == "FOREIGN" {
        let (number, found) = words.split_once(' ').unwrap_or((&words, ""));
        return foreign(&key(number.parse().unwrap_or(1)), found.as_bytes());
    }
    if error.code() == "SCHEMA" {
        return RegistryError::Schema { found: words, ours: super::keys::SCHEMA };
    }
    if words.contains("max number of clients") {
        return RegistryError::Unreachable("it has as many clients as it takes (maxclients)".to_owned());
    }
    if is("READONLY") {
        return RegistryError::ReadOnly("it is a replica that only reads; the master is elsewhere".to_owned());
    }
    if is("OOM") {
        return RegistryError::ReadOnly("it has no memory left (maxmemory)".to_owned());
    }
    if is("MISCONF") {
        return RegistryError::ReadOnly(format!("it cannot save to its disk: {words}"));
    }
    if is("NOREPLICAS") {
        return RegistryError::ReadOnly("it has too few replicas in reach (min-replicas-to-write)".to_owned());
    }
    if is("NOPERM") || words.contains("user executing the script can't") {
        return RegistryError::Refused(format!("its user may not do this: {words}"));
    }
    // Who has not logged in may not even say much: a command with more than ten words is refused unread.
    let is_locked_out = is("NOAUTH") || words.contains("unauthenticated");
    match error.code() {
        _ if is_locked_out => RegistryError::Refused("it asks for a password, and none was given".to_owned()),
        "WRONGPASS" => RegistryError::Refused("wrong user or password".to_owned()),
        "LOADING" => RegistryError::Unreachable("it is still loading its data".to_owned()),
        "BUSY" => RegistryError::Unreachable(format!("it is busy: {words}")),
        "MASTERDOWN" => RegistryError::Unreachable("it is a replica that has lost its master".to_owned()),
        "CLUSTERDOWN" => RegistryError::Unreachable(format!("the Cluster is down: {words}")),
        "TRYAGAIN" | "MOVED" | "ASK" => RegistryError::Unreachable("its slots are just being moved".to_owned()),
        code => RegistryError::Refused(format!("{code} {words}")),
    }
}

/// What a refusal of the login means.
pub(super) fn login(error: &ServerError, to: &Target) -> RegistryError {
    let words = said(error);
    let text = match error.code() {
        "WRONGPASS" => "wrong user or password".to_owned(),
        "LOADING" | "MASTERDOWN" | "BUSY" => return refused(error, |_| String::new()),
        "ERR" if words.contains("max number of clients") => return refused(error, |_| String::new()),
        "ERR" if words.contains("without any password configured") => {
            "a password was given, and it asks for none: take it out of the URL".to_owned()
        }
        "ERR" if words.contains("DB index") => "it has no database of that number".to_owned(),
        "ERR" if words.contains("SELECT is not allowed") => "it is a Cluster: use redis+cluster://".to_owned(),
        "NOAUTH" => "it asks for a password, and none was given".to_owned(),
        code => format!("{code} {words}"),
    };
    RegistryError::Refused(format!("{to}: {text}"))
}

/// A value that is not ours.
pub(super) fn foreign(key: &str, found: &[u8]) -> RegistryError {
    let text: String = String::from_utf8_lossy(found).chars().take(SHOWN).collect();
    RegistryError::Foreign { key: key.to_owned(), found: format!("{text:?}") }
}

/// Redis's own words, in one line and not many.
fn said(error: &ServerError) -> String {
    error.details().unwrap_or_default().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

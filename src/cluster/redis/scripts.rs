//! The scripts. Sent by hash; in full when the server does not know it, after a restart, a failover or `SCRIPT FLUSH`.

use std::sync::LazyLock;

use redis::{Cmd, Script, ToRedisArgs};

use super::Command;
use super::keys::Key;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident $file:literal)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Source> = LazyLock::new(|| {
            Source::new(concat!(include_str!("prelude.lua"), include_str!($file)))
        });)*
    };
}

scripts! {
    /// Enters a node.
    JOIN "join.lua"
    /// Renews a lease and reads the membership.
    RENEW "renew.lua"
    /// Sets a tombstone by compare-and-set.
    BURY "bury.lua"
    /// Ends an incarnation in order.
    LEAVE "leave.lua"
    /// Puts back what nodes remember.
    RESTORE "restore.lua"
    /// Puts a grave back.
    REOPEN "reopen.lua"
    /// Claims a record.
    CLAIM "claim.lua"
    /// Removes a claimed record.
    FINISH "finish.lua"
    /// Counts.
    COUNT "count.lua"
}

/// A script and its hash.
pub(super) struct Source {
    text: &'static str,
    hash: String,
}

impl Source {
    fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// The command that runs it. All keys stand in one slot.
    pub(super) fn on(&self, keys: Vec<Key>) -> Call {
        let begin = |name: &str, what: &str| {
            let mut cmd = redis::cmd(name);
            cmd.arg(what).arg(keys.len());
            for key in &keys {
                cmd.arg(&key.name);
            }
            cmd
        };
        Call { cmd: begin("EVALSHA", &self.hash), full: begin("EVAL", self.text), keys }
    }
}

/// A call of a script on its way to be a [`Command`].
pub(super) struct Call {
    keys: Vec<Key>,
    cmd: Cmd,
    full: Cmd,
}

impl Call {
    pub(super) fn arg(mut self, arg: impl ToRedisArgs + Copy) -> Self {
        self.cmd.arg(arg);
        self.full.arg(arg);
        self
    }

    pub(super) fn command(self) -> Command {
        Command { keys: self.keys, cmd: self.cmd, full: Some(self.full) }
    }
}

//! Where Redis is: one server, a group watched by Sentinel, or a Cluster, read from one URL.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// Why a text does not say where Redis is. Never shows the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or none.
    #[error(
        "begins with none of redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://"
    )]
    Scheme,
    /// No host, or an odd one.
    #[error("`{0}` is not host or host:port")]
    Host(String),
    /// Several hosts where one server is meant.
    #[error("several hosts need redis+sentinel:// or redis+cluster://")]
    Hosts,
    /// What stands after the first `/` is no number.
    #[error("the database `{0}` is not a number from 0 to 65535")]
    Database(String),
    /// A Cluster has one database.
    #[error("a Cluster has no databases: leave out what follows the hosts")]
    ClusterDatabase,
    /// Sentinel is asked for a group by its name.
    #[error("Sentinel needs the name of the master after the hosts: redis+sentinel://host:26379/mymaster")]
    Master,
    /// User or password cannot be read.
    #[error("user and password need percent-encoding: one of them is not UTF-8 when decoded")]
    Credentials,
    /// A user without a password.
    #[error("a user needs a password: user:password@")]
    Password,
    /// Options after `?` or `#`.
    #[error("`?` and `#` have no meaning here; in a password write %3F and %23")]
    Options,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let wrong = || AddressError::Host(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let _address: std::net::Ipv6Addr = host.parse().map_err(|_| wrong())?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return Err(wrong());
        }
        let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| wrong()))?;
        if port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// How many servers there are and how they hang together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One server.
    Single(Target),
    /// The master that these sentinels know by this name.
    Sentinel {
        /// Some of the sentinels; one that answers is enough.
        sentinels: Vec<Target>,
        /// The name.
        master: String,
    },
    /// A Cluster that these servers are a part of.
    Cluster(Vec<Target>),
}

/// Where Redis is and how to log in.
#[derive(Debug, Clone)]
pub struct Address {
    /// The servers.
    pub shape: Shape,
    /// Whether to speak TLS, to sentinels too.
    pub tls: bool,
    /// The user; the default user when there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database; 0 in a Cluster.
    pub database: u16,
}

/// Most servers a URL may list.
const MAX_HOSTS: usize = 64;

impl Address {
    /// Reads a URL:
    ///
    /// | form | means |
    /// | --- | --- |
    /// | `redis://[[user]:password@]host[:port][/database]` | one server |
    /// | `redis+sentinel://[[user]:password@]host[:port],…/master[/database]` | the master that Sentinel names |
    /// | `redis+cluster://[[user]:password@]host[:port],…` | a Cluster, found through any of the hosts |
    ///
    /// `rediss` in place of `redis` speaks TLS. Ports are 6379, of sentinels 26379, when left out. What is special in
    /// a URL is percent-encoded in user and password.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (tls, shape) = match scheme {
            "redis" => (false, ""),
            "rediss" => (true, ""),
            _ => match scheme.split_once('+').ok_or(AddressError::Scheme)? {
                ("redis", shape) => (false, shape),
                ("rediss", shape) => (true, shape),
                _ => return Err(AddressError::Scheme),
            },
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Options);
        }
        // A `/` or `@` that is not encoded stands in a password more often than anywhere else: the last `@` ends it.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = login.map_or(Ok((None, None)), credentials)?;
        let (hosts, path) =
            rest.split_once('/').map_or((rest, ""), |(hosts, path)| (hosts, path.trim_end_matches('/')));
        let port = if shape == "sentinel" { 26_379 } else { 6_379 };
        let hosts: Vec<&str> = hosts.split(',').take(MAX_HOSTS + 1).collect();
        if hosts.len() > MAX_HOSTS {
            return Err(AddressError::Host(format!("a list of more than {MAX_HOSTS} hosts")));
        }
        let targets = hosts.into_iter().map(|host| Target::parse(host, port)).collect::<Result<Vec<_>, _>>();
        let targets = targets.map_err(|error| {
            // Without an `@` it may be a password that lost its host.
            let is_shown = login.is_some() || !matches!(error, AddressError::Host(_));
            if is_shown { error } else { AddressError::Host("***".to_owned()) }
        })?;
        let (shape, database) = match shape {
            "" => match <[Target; 1]>::try_from(targets) {
                Ok([target]) => (Shape::Single(target), path),
                Err(_) => return Err(AddressError::Hosts),
            },
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                if master.is_empty() || !master.chars().all(plain) {
                    return Err(AddressError::Master);
                }
                (Shape::Sentinel { sentinels: targets, master: master.to_owned() }, database)
            }
            "cluster" if path.is_empty() => (Shape::Cluster(targets), ""),
            "cluster" => return Err(AddressError::ClusterDatabase),
            _ => return Err(AddressError::Scheme),
        };
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| AddressError::Database(number.to_owned()))?,
        };
        Ok(Self { shape, tls, user, password, database })
    }
}

fn credentials(login: &str) -> Result<(Option<String>, Option<Secret>), AddressError> {
    let decoded =
        |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| AddressError::Credentials);
    let (user, password) = login.split_once(':').ok_or(AddressError::Password)?;
    if password.is_empty() {
        return Err(AddressError::Password);
    }
    let user = if user.is_empty() { None } else { Some(decoded(user)?) };
    Ok((user, Some(Secret::new(decoded(password)?))))
}

impl fmt::Display for Address {
    /// For logs: hosts and names, no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let list = |targets: &[Target]| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.shape {
            Shape::Single(target) => write!(f, "{scheme}://{target}/{}", self.database),
            Shape::Sentinel { sentinels, master } => {
                write!(f, "{scheme}+sentinel://{}/{master}/{}", list(sentinels), self.database)
            }
            Shape::Cluster(targets) => write!(f, "{scheme}+cluster://{}", list(targets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_is_read() {
        let one = Address::parse("redis://localhost").unwrap();
        assert_eq!((&one.shape, one.tls, one.database), (&Shape::Single(target("localhost", 6379)), false, 0));
        let one = Address::parse("rediss://ann:p%40ss%2F@[::1]:7000/3").unwrap();
        assert_eq!((&one.shape, one.tls, one.database), (&Shape::Single(target("::1", 7000)), true, 3));
        assert_eq!((one.user.as_deref(), one.password.unwrap().reveal()), (Some("ann"), "p@ss/"));
        let some = Address::parse("redis+sentinel://:secret@a,b:1/main/2").unwrap();
        let sentinels = vec![target("a", 26_379), target("b", 1)];
        assert_eq!(some.shape, Shape::Sentinel { sentinels, master: "main".to_owned() });
        assert_eq!((some.user, some.database), (None, 2));
        let many = Address::parse("rediss+cluster://a:1,b/").unwrap();
        assert_eq!((many.shape, many.tls), (Shape::Cluster(vec![target("a", 1), target("b", 6379)]), true));
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let cases = [
            ("localhost:6379", AddressError::Scheme),
            ("http://a", AddressError::Scheme),
            ("redis+ring://a", AddressError::Scheme),
            ("redis://", AddressError::Host("***".to_owned())),
            ("redis://:x@a:port", AddressError::Host("a:port".to_owned())),
            ("redis://:x@a:0", AddressError::Host("a:0".to_owned())),
            ("redis://:x@[::1", AddressError::Host("[::1".to_owned())),
            ("redis://a,b", AddressError::Hosts),
            ("redis://a/x", AddressError::Database("x".to_owned())),
            ("redis://a/-1", AddressError::Database("-1".to_owned())),
            ("redis+sentinel://a", AddressError::Master),
            ("redis+cluster://a/1", AddressError::ClusterDatabase),
            ("redis://ann@a", AddressError::Password),
            ("redis://ann:@a", AddressError::Password),
            ("redis://:%ff@a", AddressError::Credentials),
            ("redis://a?db=1", AddressError::Options),
        ];
        for (url, error) in cases {
            assert_eq!(Address::parse(url).map(|address| address.to_string()), Err(error), "{url}");
        }
    }

    #[test]
    fn no_form_of_an_address_shows_the_password() {
        let address = Address::parse("redis+sentinel://ann:hunter2@a,[::1]:5/main").unwrap();
        assert_eq!(address.to_string(), "redis+sentinel://a:26379,[::1]:5/main/0");
        assert!(!format!("{address:?}").contains("hunter2"));
        for url in [
            "redis://:hunter2@a:b",
            "redis://:hunter2@a/x",
            "redis+x://:hunter2@a",
            "redis://:hunter2",
            "redis://:hunt/er2@a,b",
        ] {
            assert!(!Address::parse(url).unwrap_err().to_string().contains("er2"), "{url}");
        }
    }
}

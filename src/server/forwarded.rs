//! Who the client is when proxies stand between: `X-Forwarded-For` or `Forwarded` (RFC 7239), read from the right.
//!
//! Each proxy adds the address that it saw to the right of what it was given, so what a client writes itself stands to
//! the left of what the proxies know. Reading begins at the TCP peer and goes left for as long as the addresses are
//! those of trusted proxies; the first other one is the client. What stands further left is anybody's invention.
//!
//! One of the two headers is believed, never both: a proxy keeps one and hands the other on as the client wrote it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Networks, Origin};

/// The header that the proxies in front keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Port` beside it.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), with its `proto` and the port of its `host`.
    Forwarded,
}

/// What is believed of those who stand in front.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Where they connect from.
    pub trusted: Networks,
    /// What they say over HTTP.
    pub header: ForwardedHeader,
    /// Whether each connection begins with a PROXY header, and only they may connect.
    pub is_protocol_on: bool,
}

/// Longest text of one address that is looked at: an IPv6 address in brackets and quotes, with a port.
const MAX_NODE: usize = 64;
/// Proxies one behind the other that are followed.
const MAX_HOPS: usize = 32;

/// A client as far as is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address; that of the last proxy that is known when that one does not tell.
    pub(super) address: IpAddr,
    /// Whether [`Client::address`] is the client's, and not that of a proxy that keeps it to itself.
    pub(super) is_known: bool,
    /// Whether it came over TLS.
    pub(super) is_tls: bool,
    /// The port it connected to.
    pub(super) port: u16,
    /// `X-Forwarded-For` as events show it: everything up to [`Client::address`], which is its last.
    pub(super) chain: String,
}

/// Finds the client of a request. `values` gives the values of a header, line by line. Nothing in them is an error:
/// what cannot be read is not believed.
pub(super) fn resolve<'a, V: Iterator<Item = &'a str>>(
    values: impl Fn(&'static str) -> V,
    origin: Origin,
    proxies: &Proxies,
) -> Client {
    let peer = origin.peer.ip().to_canonical();
    let mut client = Client {
        address: peer,
        is_known: !origin.is_anonymous,
        is_tls: origin.is_tls,
        port: origin.port,
        chain: String::new(),
    };
    let is_believed = !origin.is_anonymous && proxies.trusted.contains(peer);
    let claimed = match proxies.header {
        ForwardedHeader::XForwardedFor if is_believed => {
            let nodes: Vec<&str> = values("x-forwarded-for").flat_map(items).collect();
            let walk = walk(peer, nodes.iter().rev().map(|text| node(text)), &proxies.trusted);
            (client.address, client.is_known) = (walk.address, walk.is_known);
            // Up to the address, which stands there in a form of its own.
            for text in nodes.iter().take(nodes.len().saturating_sub(walk.steps)) {
                client.chain.push_str(text);
                client.chain.push_str(", ");
            }
            let last = |name| values(name).flat_map(items).last();
            Claimed {
                is_tls: last("x-forwarded-proto").and_then(is_tls),
                port: last("x-forwarded-port").and_then(port),
            }
        }
        ForwardedHeader::Forwarded if is_believed => {
            let elements: Vec<&str> = values("forwarded").flat_map(items).collect();
            let elements: Vec<Option<Element>> =
                elements.into_iter().rev().take(MAX_HOPS).map(Element::parse).collect();
            let nodes = elements.iter().map(|element| element.as_ref().and_then(|e| e.client));
            let walk = walk(peer, nodes, &proxies.trusted);
            (client.address, client.is_known) = (walk.address, walk.is_known);
            // The element that names an address was written by the proxy which that address connected to.
            let told = walk.steps.checked_sub(1).and_then(|n| elements.get(n)?.as_ref());
            told.map_or_else(Claimed::default, |element| element.claimed)
        }
        ForwardedHeader::XForwardedFor | ForwardedHeader::Forwarded => Claimed::default(),
    };
    if !is_believed || proxies.header == ForwardedHeader::Forwarded {
        for text in values("x-forwarded-for") {
            client.chain.push_str(text);
            client.chain.push_str(", ");
        }
    }
    client.chain.push_str(&client.address.to_string());
    if let Some(is_tls) = claimed.is_tls {
        (client.is_tls, client.port) = (is_tls, if is_tls { 443 } else { 80 });
    }
    client.port = claimed.port.unwrap_or(client.port);
    client
}

/// Whether nobody but this machine has a part in a request, as far as is known: every address on the way is loopback,
/// the one that really connected included. A claim can take this away and never give it.
pub(super) fn is_local<'a, V: Iterator<Item = &'a str>>(
    values: impl Fn(&'static str) -> V,
    origin: Origin,
    proxies: &Proxies,
) -> bool {
    let client = resolve(values, origin, proxies);
    client.is_known
        && [origin.hop, origin.peer.ip(), client.address].iter().all(|address| address.to_canonical().is_loopback())
}

/// What a proxy says of the connection it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Claimed {
    is_tls: Option<bool>,
    port: Option<u16>,
}

struct Walk {
    address: IpAddr,
    is_known: bool,
    /// How many nodes from the right the address is; 0 is the peer.
    steps: usize,
}

/// Goes from proxy to proxy for as long as they are trusted. `nodes` are what they wrote, the nearest first.
fn walk(peer: IpAddr, nodes: impl Iterator<Item = Option<IpAddr>>, trusted: &Networks) -> Walk {
    let mut walk = Walk { address: peer, is_known: true, steps: 0 };
    for node in nodes.take(MAX_HOPS) {
        if !trusted.contains(walk.address) {
            break;
        }
        let Some(address) = node else {
            walk.is_known = false;
            break;
        };
        walk = Walk { address, is_known: true, steps: walk.steps + 1 };
    }
    walk
}

/// The items of a list.
///
/// Quotes do not hide a comma here. An address has none, and who splits with regard to quotes can be made to swallow
/// what a proxy appended, by a quote that a client opened. A text that was torn apart has a lone quote, and is no item.
fn items(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// An address as proxies write it: of either family, in brackets, with a port. `unknown` and obfuscated names are none.
fn node(text: &str) -> Option<IpAddr> {
    if text.len() > MAX_NODE {
        return None;
    }
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port)).then_some(())?;
        IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, behind) = text.split_once(':')?;
        is_port(behind).then_some(())?;
        IpAddr::V4(address.parse::<Ipv4Addr>().ok()?)
    };
    Some(address.to_canonical())
}

/// A port, or a name in its place (RFC 7239, 6).
fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    is_number || text.strip_prefix('_').is_some_and(is_name)
}

fn is_tls(scheme: &str) -> Option<bool> {
    let is = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    if is(["https", "wss"]) { Some(true) } else { is(["http", "ws"]).then_some(false) }
}

fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// One element of `Forwarded`: what one proxy says.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    client: Option<IpAddr>,
    claimed: Claimed,
}

impl Element {
    /// Reads all pairs of an element; `None` when one of them is malformed, or given twice.
    fn parse(text: &str) -> Option<Self> {
        let mut seen: [Option<String>; 3] = [const { None }; 3];
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            (!name.is_empty() && name.bytes().all(is_token)).then_some(())?;
            let value = unquoted(value)?;
            let place = ["for", "proto", "host"].iter().position(|known| name.eq_ignore_ascii_case(known));
            if let Some(place) = place.and_then(|n| seen.get_mut(n))
                && place.replace(value).is_some()
            {
                return None;
            }
        }
        let [client, proto, host] = &seen;
        let host_port = host.as_deref().and_then(|host| port(host.rsplit_once(':')?.1));
        Some(Self {
            client: client.as_deref().and_then(node),
            claimed: Claimed { is_tls: proto.as_deref().and_then(is_tls), port: host_port },
        })
    }
}

/// A value: a token, a quoted text, or an address whose quotes were forgotten, as many proxies do.
fn unquoted(value: &str) -> Option<String> {
    let Some(inside) = value.strip_prefix('"') else {
        let is_plain = |b| is_token(b) || b":[]".contains(&b);
        return (!value.is_empty() && value.bytes().all(is_plain)).then(|| value.to_owned());
    };
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(text),
            '\\' => text.push(characters.next()?),
            character => text.push(character),
        }
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// The client's address for a chain of values as one peer sends it; for `fuzzing`.
pub(super) fn look(header: ForwardedHeader, lines: &[&str], peer: IpAddr, trusted: &Networks) -> IpAddr {
    let origin = Origin { hop: peer, peer: (peer, 1).into(), is_anonymous: false, port: 80, is_tls: false };
    let proxies = Proxies { trusted: trusted.clone(), header, is_protocol_on: false };
    let name = match header {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => "forwarded",
    };
    let none: &[&str] = &[];
    resolve(|asked| if asked == name { lines } else { none }.iter().copied(), origin, &proxies).address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn origin(peer: &str) -> Origin {
        let peer: IpAddr = peer.parse().unwrap();
        Origin { hop: peer, peer: (peer, 4_000).into(), is_anonymous: false, port: 8_080, is_tls: false }
    }

    fn proxies(header: ForwardedHeader) -> Proxies {
        Proxies { trusted: Networks::parse("10.0.0.0/24,2001:db8:1::/64").unwrap(), header, is_protocol_on: false }
    }

    fn client(header: ForwardedHeader, peer: &str, lines: &[(&str, &str)]) -> Client {
        let values = |name: &'static str| lines.iter().filter(move |(n, _)| *n == name).map(|(_, value)| *value);
        resolve(values, origin(peer), &proxies(header))
    }

    fn by_x(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let client = client(ForwardedHeader::XForwardedFor, PEER, &lines);
        assert!(client.chain.ends_with(&client.address.to_string()), "{client:?}");
        client.address.to_string()
    }

    fn by_f(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        client(ForwardedHeader::Forwarded, PEER, &lines).address.to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        assert_eq!(by_x(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(by_x(&["9.9.9.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(by_x(&["9.9.9.9", "192.0.2.1, 10.0.0.2", "10.0.0.3"]), "192.0.2.1");
        assert_eq!(by_x(&["9.9.9.9, 10.0.0.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(by_x(&["2001:db8::5,2001:db8:1::7"]), "2001:db8::5");
        assert_eq!(by_f(&["for=9.9.9.9, for=192.0.2.1;proto=https;by=10.0.0.1", "For=\"10.0.0.2:99\""]), "192.0.2.1");
        assert_eq!(by_f(&["for=\"[2001:db8::5]:47\", for=\"[2001:db8:1::7]\""]), "2001:db8::5");
        // A client within the trusted networks is the leftmost of them.
        assert_eq!(by_x(&["10.0.0.8, 10.0.0.9"]), "10.0.0.8");
        assert_eq!(by_x(&[]), PEER);
    }

    #[test]
    fn an_address_has_many_forms() {
        for (text, address) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("[2001:db8::5]:_hidden", "2001:db8::5"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::FFFF:192.0.2.1]:1", "192.0.2.1"),
            ("2001:DB8:0:0::5", "2001:db8::5"),
        ] {
            assert_eq!(by_x(&[text]), address, "{text}");
            assert_eq!(by_f(&[&format!("for=\"{text}\"")]), address, "{text}");
        }
    }

    #[test]
    fn behind_what_cannot_be_read_the_last_known_proxy_stands() {
        let long = "1".repeat(MAX_NODE + 1);
        for text in [
            "unknown",
            "_hidden",
            "?",
            "localhost",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[192.0.2.1]",
            "[2001:db8::5",
            "[2001:db8::5]x",
            "fe80::1%eth0",
            "192.0.2.1 x",
            &long,
        ] {
            assert_eq!(by_x(&["9.9.9.9", text]), PEER, "{text}");
            assert_eq!(by_x(&["9.9.9.9", text, "10.0.0.7"]), "10.0.0.7", "{text}");
            assert_eq!(by_f(&["for=9.9.9.9", &format!("for={text}"), "for=10.0.0.7"]), "10.0.0.7", "{text}");
        }
        assert_eq!(by_x(&["9.9.9.9", "\"192.0.2.1\""]), PEER);
        for element in ["for", "for=", "=1", "proto=https", "for=192.0.2.1;for=9.9.9.9", "for=192.0.2.1;x=\"", "f r=1"]
        {
            assert_eq!(by_f(&["for=9.9.9.9", element]), PEER, "{element}");
        }
        let lost = client(
            ForwardedHeader::XForwardedFor,
            PEER,
            &[("x-forwarded-for", "9.9.9.9, unknown, 10.0.0.7, 10.0.0.2")],
        );
        assert_eq!((lost.chain.as_str(), lost.is_known), ("9.9.9.9, unknown, 10.0.0.7", false));
    }

    #[test]
    fn a_quote_that_a_client_opened_does_not_swallow_what_a_proxy_appends() {
        assert_eq!(by_f(&["for=\", for=192.0.2.1"]), "192.0.2.1");
        assert_eq!(by_f(&["for=\"9.9.9.9, for=\"192.0.2.1\";proto=https"]), "192.0.2.1");
        assert_eq!(by_f(&["a=\"\\, for=192.0.2.1;host=\"h\""]), "192.0.2.1");
        // Nor does a host name that looks like an element, since its closing quote is left over.
        assert_eq!(by_f(&["for=192.0.2.1;host=\"x, for=6.6.6.6\""]), PEER);
        assert_eq!(by_f(&["for=192.0.2.1;host=\"x, for=6.6.6.6;a=\""]), PEER);
    }

    #[test]
    fn the_header_that_the_proxies_do_not_keep_is_the_clients_text() {
        let both = [("forwarded", "for=9.9.9.9;proto=https"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, PEER, &both).address.to_string(), "192.0.2.1");
        let both = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https"), ("forwarded", "for=192.0.2.1")];
        let found = client(ForwardedHeader::Forwarded, PEER, &both);
        assert_eq!((found.chain.as_str(), found.is_tls, found.port), ("9.9.9.9, 192.0.2.1", false, 8_080));
    }

    #[test]
    fn events_show_the_chain_up_to_the_client_with_its_scheme_and_port() {
        let shown = |peer, lines: &[(&str, &str)]| {
            let client = client(ForwardedHeader::XForwardedFor, peer, lines);
            (client.chain, client.is_tls, client.port)
        };
        let chain = ("x-forwarded-for", "9.9.9.9,192.0.2.1:5, 10.0.0.2");
        let (https, odd) = (("x-forwarded-proto", "http, HTTPS"), ("x-forwarded-proto", "gopher"));
        let port = |text| ("x-forwarded-port", text);
        assert_eq!(shown(PEER, &[chain]), ("9.9.9.9, 192.0.2.1".into(), false, 8_080));
        assert_eq!(shown(PEER, &[chain, https]), ("9.9.9.9, 192.0.2.1".into(), true, 443));
        assert_eq!(shown(PEER, &[https, port("8443")]), (PEER.into(), true, 8_443));
        for wrong in ["0", "+1", "65536", "x", ""] {
            assert_eq!(shown(PEER, &[odd, port(wrong)]), (PEER.into(), false, 8_080), "{wrong}");
        }
        let stranger = "192.0.2.66";
        assert_eq!(
            shown(stranger, &[chain, https, port("1")]),
            ("9.9.9.9,192.0.2.1:5, 10.0.0.2, 192.0.2.66".into(), false, 8_080)
        );
        let element = ("forwarded", "proto=http;for=9.9.9.9, host=\"a.example:8443\";proto=https;for=192.0.2.1");
        let found = client(ForwardedHeader::Forwarded, PEER, &[element]);
        assert_eq!((found.chain.as_str(), found.is_tls, found.port), ("192.0.2.1", true, 8_443));
    }

    #[test]
    fn a_connection_of_the_proxy_itself_has_nothing_to_claim() {
        let origin = Origin { is_anonymous: true, ..origin(PEER) };
        let values =
            |name: &'static str| [("x-forwarded-for", "192.0.2.1")].into_iter().filter(move |(n, _)| *n == name);
        let found =
            resolve(|name| values(name).map(|(_, value)| value), origin, &proxies(ForwardedHeader::XForwardedFor));
        assert_eq!((found.address.to_string(), found.is_known), (PEER.to_owned(), false));
    }

    #[test]
    fn a_claim_can_take_away_that_a_caller_is_local_and_never_give_it() {
        let local = |hop: &str, peer: &str, trusted: &str, claims: &[&str]| {
            let proxies = Proxies { trusted: Networks::parse(trusted).unwrap(), ..Proxies::default() };
            let origin = Origin { hop: hop.parse().unwrap(), ..origin(peer) };
            is_local(|name| claims.iter().copied().filter(move |_| name == "x-forwarded-for"), origin, &proxies)
        };
        let (here, there) = ("127.0.0.1", "192.0.2.1");
        assert!(local(here, here, "", &[]) && local(here, here, "127.0.0.1", &[here]) && local("::1", "::1", "", &[]));
        // Nobody is believed: as if the header was not there.
        assert!(local(here, here, "", &[there]) && !local(there, there, "", &[here]));
        assert!(!local(there, there, "192.0.2.0/24", &[here]) && !local(there, here, "127.0.0.1", &[here]));
        assert!(!local(here, here, "127.0.0.1", &[there]) && !local(here, there, "127.0.0.1", &[here]));
        assert!(!local(here, here, "127.0.0.1", &["unknown"]));
    }

    #[test]
    fn a_flood_of_addresses_is_followed_for_a_while() {
        let many = vec!["10.0.0.2"; 5_000].join(",");
        assert_eq!(by_x(&["192.0.2.1", &many]), "10.0.0.2");
        assert_eq!(by_f(&["for=192.0.2.1", &vec!["for=10.0.0.2"; 5_000].join(",")]), "10.0.0.2");
        assert_eq!(by_x(&[&many, "192.0.2.1"]), "192.0.2.1");
        assert_eq!(by_x(&[&",".repeat(10_000), "192.0.2.1"]), "192.0.2.1");
    }

    /// What a client may write: addresses of all kinds, and everything that means something to a parser.
    fn scribble() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("10.0.0.2".to_owned()),
            Just("for=10.0.0.3".to_owned()),
            Just("for=\"".to_owned()),
            Just("unknown".to_owned()),
            Just(", ".to_owned()),
            "[ -~]{0,12}",
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_writes_the_address_is_its_own(lines in proptest::collection::vec(scribble(), 0..4)) {
            for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
                let lines: Vec<_> = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-port"]
                    .iter().flat_map(|name| lines.iter().map(|line| (*name, line.as_str()))).collect();
                let found = client(header, "192.0.2.66", &lines);
                prop_assert_eq!((found.address.to_string(), found.is_tls, found.port), ("192.0.2.66".to_owned(), false, 8_080));
                prop_assert!(found.chain.ends_with("192.0.2.66"));
            }
        }

        #[test]
        fn whatever_a_client_writes_the_proxies_are_believed(
            written in scribble(), hops in 0_u8..5, on_a_line_of_its_own: bool
        ) {
            let proxies: Vec<String> = (0..hops).map(|n| format!("10.0.0.{}", 100 + n)).collect();
            let join = |line: String, mut items: Vec<String>| {
                if on_a_line_of_its_own { items.insert(0, line); return items; }
                vec![std::iter::once(line).chain(items).collect::<Vec<_>>().join(", ")]
            };
            let all: Vec<String> = std::iter::once("192.0.2.1".to_owned()).chain(proxies).collect();
            let lines = join(written.clone(), all.clone());
            prop_assert_eq!(by_x(&lines.iter().map(String::as_str).collect::<Vec<_>>()), "192.0.2.1");
            let lines = join(written, all.iter().map(|a| format!("for=\"{a}:9\";proto=https;host=\"h\"")).collect());
            prop_assert_eq!(by_f(&lines.iter().map(String::as_str).collect::<Vec<_>>()), "192.0.2.1");
        }
    }
}

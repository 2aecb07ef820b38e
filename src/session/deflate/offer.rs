//! What a client offers in `Sec-WebSocket-Extensions`, and what is answered (RFC 7692, section 7.1).

use std::borrow::Cow;

const EXTENSION: &str = "permessage-deflate";
const MAX_WINDOW_BITS: u8 = 15;
/// Deflate knows windows of 256 bytes; the codec does not, and a larger one would break the promise.
const MIN_WINDOW_BITS: u8 = 9;

/// The compression that both sides will use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// Base-2 logarithm of the window for messages to the client, 9 to 15.
    pub server_window_bits: u8,
    /// Value of the `Sec-WebSocket-Extensions` header of the answer.
    pub response: String,
}

/// Chooses the first acceptable `permessage-deflate` offer of the header's values, in order.
///
/// An offer with a parameter that is unknown, repeated, or has a value it cannot have is declined, as is
/// `server_max_window_bits=8`. A header value that breaks the grammar offers nothing. `None`: nothing is negotiated.
pub fn negotiate<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Agreement> {
    values.into_iter().filter_map(parse).flatten().find_map(|offer| offer.accept())
}

/// One extension with its parameters.
struct Offer<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

impl Offer<'_> {
    fn accept(&self) -> Option<Agreement> {
        if !self.name.eq_ignore_ascii_case(EXTENSION) {
            return None;
        }
        let mut window = None;
        for (i, (name, value)) in self.parameters.iter().enumerate() {
            let repeated = self.parameters.iter().take(i).any(|(earlier, _)| earlier == name);
            let value = value.as_deref();
            let understood = match *name {
                "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                // What the client could do; it is never asked to, since any window of its can be read.
                "client_max_window_bits" => value.is_none_or(|text| window_bits(text).is_some()),
                "server_max_window_bits" => {
                    window = value.and_then(window_bits);
                    window.is_some_and(|bits| bits >= MIN_WINDOW_BITS)
                }
                _ => false,
            };
            if repeated || !understood {
                return None;
            }
        }
        let mut response = format!("{EXTENSION}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = window {
            // An offer with this parameter is accepted by repeating it (RFC 7692, section 7.1.2.1).
            response.push_str("; server_max_window_bits=");
            response.push_str(&bits.to_string());
        }
        Some(Agreement { server_window_bits: window.unwrap_or(MAX_WINDOW_BITS), response })
    }
}

/// 8 to 15, in decimal without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|bits| plain && (8..=MAX_WINDOW_BITS).contains(bits))
}

/// Reads `extension-list` of RFC 6455, section 9.1; `None` when the value does not follow it.
fn parse(value: &str) -> Option<Vec<Offer<'_>>> {
    let mut text = Text { rest: value };
    let mut offers = Vec::new();
    loop {
        // Lists may have empty elements (RFC 9110, section 5.6.1).
        while text.eat(',') {}
        if text.rest.is_empty() {
            return Some(offers);
        }
        let mut offer = Offer { name: text.token()?, parameters: Vec::new() };
        while text.eat(';') {
            let name = text.token()?;
            let value = if text.eat('=') { Some(text.value()?) } else { None };
            offer.parameters.push((name, value));
        }
        offers.push(offer);
        if !text.rest.is_empty() && !text.rest.starts_with(',') {
            return None;
        }
    }
}

/// What is left of a header value.
struct Text<'a> {
    rest: &'a str,
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Takes this separator, with the space around it.
    fn eat(&mut self, separator: char) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(separator) else { return false };
        self.rest = rest;
        self.skip_space();
        true
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at_checked(end).filter(|(token, _)| !token.is_empty())?;
        self.rest = rest;
        self.skip_space();
        Some(token)
    }

    /// A token, bare or in quotes.
    fn value(&mut self) -> Option<Cow<'a, str>> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.token().map(Cow::Borrowed);
        };
        let mut plain = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => plain.push(chars.next()?),
                c => plain.push(c),
            }
        }
        self.rest = chars.as_str();
        self.skip_space();
        let mut unquoted = Text { rest: &plain };
        // The grammar wants a token inside the quotes too.
        unquoted.token().filter(|token| token.len() == plain.len())?;
        Some(Cow::Owned(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(value: &str) -> Option<String> {
        negotiate([value]).map(|agreement| agreement.response)
    }

    // checklist: 316
    #[test]
    fn the_offer_of_browsers_is_answered_with_both_no_context_takeover() {
        let agreement = negotiate(["permessage-deflate; client_max_window_bits"]).unwrap();
        assert_eq!(agreement, Agreement { server_window_bits: 15, response: BOTH.to_owned() });
    }

    // checklist: 317
    #[test]
    fn a_window_that_was_offered_is_answered_and_promised() {
        let agreement =
            negotiate(["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"]).unwrap();
        assert_eq!(agreement.response, format!("{BOTH}; server_max_window_bits=12"));
        assert_eq!(agreement.server_window_bits, 12);
    }

    #[test]
    fn parameters_are_taken_bare_or_quoted_in_any_order() {
        for offer in [
            "permessage-deflate",
            "Permessage-Deflate",
            " ,, permessage-deflate ;client_no_context_takeover ; server_no_context_takeover\t,",
            "permessage-deflate; client_max_window_bits=\"8\"",
            "permessage-deflate; client_max_window_bits = \"1\\5\"",
        ] {
            assert_eq!(answer(offer).as_deref(), Some(BOTH), "{offer}");
        }
        assert_eq!(
            answer("permessage-deflate;server_max_window_bits=\"9\"").unwrap(),
            format!("{BOTH}; server_max_window_bits=9")
        );
    }

    #[test]
    fn an_offer_that_cannot_be_kept_is_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=16",
            "server_max_window_bits=012",
            "server_max_window_bits=+9",
            "server_max_window_bits=\"\"",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=a",
            "server_no_context_takeover=1",
            "client_no_context_takeover=\"\"",
            "client_max_window_bits; client_max_window_bits",
            "server_max_window_bits=10; server_max_window_bits=10",
            "unknown",
            "unknown=1",
        ] {
            assert_eq!(answer(&format!("permessage-deflate; {parameters}")), None, "{parameters}");
        }
    }

    #[test]
    fn a_value_that_breaks_the_grammar_offers_nothing() {
        for value in [
            "",
            "permessage-deflate;",
            "permessage-deflate; =1",
            "permessage-deflate permessage-deflate",
            "permessage-deflate; client_max_window_bits=\"15",
            "permessage-deflate; client_max_window_bits=\"15\\",
            "permessage-deflate; client_max_window_bits=\"1 5\"",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate, @",
            "perméssage-deflate",
        ] {
            assert_eq!(answer(value), None, "{value}");
        }
    }

    #[test]
    fn the_first_acceptable_offer_wins() {
        let offers = "x-other; a=\"b,c\", permessage-deflate; server_max_window_bits=8, \
                      permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert!(answer(offers).is_none(), "`b,c` is not a token, so the whole value is malformed");
        let offers = offers.replace("b,c", "b");
        assert_eq!(answer(&offers).unwrap(), format!("{BOTH}; server_max_window_bits=10"));
        let lines = ["x-other", "permessage-deflate; nope", "permessage-deflate; server_max_window_bits=11"];
        assert_eq!(negotiate(lines).unwrap().server_window_bits, 11);
        assert_eq!(negotiate(["x-webkit-deflate-frame"]), None);
    }
}

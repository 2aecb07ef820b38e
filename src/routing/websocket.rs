//! Route selection of a WebSocket API: a message's content names its route (specification 3.4).

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::ids::RouteKey;
use crate::lang::{Selection, loose};
use crate::message::Message;

/// Custom routes and `$default` of one API, generic over what a route leads to.
#[derive(Debug)]
pub struct WebSocketRoutes<T> {
    selection: Selection,
    /// In key order.
    routes: Vec<(RouteKey, T)>,
    /// Where in `routes` a custom key is; content can name only these.
    custom: HashMap<RouteKey, usize, RandomState>,
    default: Option<usize>,
}

/// What a message selected.
#[derive(Debug)]
pub struct Match<'a, T> {
    /// The key of the route taken: the custom key or `$default`, whatever the payload asked for.
    pub key: &'a RouteKey,
    /// What it leads to.
    pub target: &'a T,
}

impl<T> WebSocketRoutes<T> {
    /// Takes the routes that messages can reach: custom keys and maybe `$default`.
    ///
    /// `$connect` and `$disconnect` belong elsewhere and are left out. Of routes with the same key the last stays.
    pub fn new(selection: Selection, routes: impl IntoIterator<Item = (RouteKey, T)>) -> Self {
        let mut sorted: Vec<(RouteKey, T)> = routes.into_iter().filter(|(key, _)| is_selectable(key)).collect();
        // The sort is stable, so of neighbours with one key the later was given later.
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut routes: Vec<(RouteKey, T)> = Vec::with_capacity(sorted.len());
        for route in sorted {
            routes.pop_if(|(key, _)| *key == route.0);
            routes.push(route);
        }
        let keys = || routes.iter().map(|(key, _)| key).enumerate();
        let custom = keys().filter(|(_, key)| !key.is_reserved()).map(|(at, key)| (key.clone(), at)).collect();
        let default = keys().find(|(_, key)| key.is_reserved()).map(|(at, _)| at);
        Self { selection, routes, custom, default }
    }

    /// The route for a message; `None` when its content names none and there is no `$default`.
    ///
    /// Allocates nothing where the expression is one member path and the member a plain string.
    pub fn select(&self, message: &Message) -> Option<Match<'_, T>> {
        let at = self.custom_route(message).or(self.default)?;
        self.routes.get(at).map(|(key, target)| Match { key, target })
    }

    /// All routes, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteKey, &T)> {
        self.routes.iter().map(|(key, target)| (key, target))
    }

    /// The route selection expression.
    pub const fn selection(&self) -> &Selection {
        &self.selection
    }

    fn custom_route(&self, message: &Message) -> Option<usize> {
        // Any variable asks for JSON here, even one that is always empty.
        if self.selection.as_static().is_none() && !self.selection.needs_body() {
            message.json_with(loose::parse)?;
        }
        self.selection.evaluate_with(message, |key| self.custom.get(key).copied()).ok().flatten()
    }
}

fn is_selectable(key: &RouteKey) -> bool {
    !key.is_reserved() || key.as_str() == "$default"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(expression: &str, keys: &[&str]) -> WebSocketRoutes<String> {
        let keys = keys.iter().map(|key| (RouteKey::parse(key).unwrap(), format!("to {key}")));
        WebSocketRoutes::new(Selection::parse(expression).unwrap(), keys)
    }

    fn selected(routes: &WebSocketRoutes<String>, payload: &str) -> Option<String> {
        let found = routes.select(&Message::from_string(payload))?;
        assert_eq!(*found.target, format!("to {}", found.key));
        Some(found.key.to_string())
    }

    // checklist: 84, 92, 93, 94, 95, 96, 97, 98, 99, 100, 103, 108, 109
    #[test]
    fn content_names_the_route() {
        let routes = routes("$request.body.action", &["join", "send", "a", "b", "$default"]);
        for (payload, key) in [
            (r#"{"action":"join"}"#, "join"),
            (r#"{"Action":"join"}"#, "$default"),
            (r#"{"action":"JOIN"}"#, "$default"),
            (r#"{"action":"join "}"#, "$default"),
            ("{}", "$default"),
            (r#"{"action":null}"#, "$default"),
            (r#"{"action":""}"#, "$default"),
            ("hello", "$default"),
            ("", "$default"),
            ("[1,2]", "$default"),
            ("7", "$default"),
            ("\"join\"", "$default"),
            ("null", "$default"),
            (r#"{"action":"unknown"}"#, "$default"),
            (r#"{"action":"send", body:"x"}"#, "send"),
            (r#"{"action":"a","action":"b"}"#, "b"),
            ("\u{feff}{\"action\":\"join\"}", "$default"),
            (r#"{"action":"join"} x"#, "$default"),
        ] {
            assert_eq!(selected(&routes, payload).as_deref(), Some(key), "{payload}");
        }
    }

    // checklist: 85, 86, 87, 88, 90, 91, 101
    #[test]
    fn every_form_of_expression_routes() {
        for (expression, payload, key) in [
            ("${request.body.action}", r#"{"action":"join"}"#, "join"),
            ("${request.body.service}/${request.body.action}", r#"{"service":"chat","action":"join"}"#, "chat/join"),
            ("$request.body.data.room", r#"{"data":{"room":"r"}}"#, "r"),
            ("$request.body.list[1]", r#"{"list":["a","b"]}"#, "b"),
            ("$request.body.n", r#"{"n":7}"#, "7"),
            ("$request.body.t", r#"{"t":true}"#, "true"),
            ("${request.body.action}-${request.body.nope}", r#"{"action":"join"}"#, "join-"),
        ] {
            assert_eq!(
                selected(&routes(expression, &[key, "$default"]), payload).as_deref(),
                Some(key),
                "{expression}"
            );
        }
    }

    // checklist: 100
    #[test]
    fn reserved_keys_are_never_reached_by_content() {
        let with_all = routes("$request.body.action", &["$connect", "$disconnect", "$default", "join"]);
        for key in ["$connect", "$disconnect", "$default"] {
            let payload = format!(r#"{{"action":"{key}"}}"#);
            assert_eq!(selected(&with_all, &payload).as_deref(), Some("$default"));
            assert_eq!(selected(&routes("$request.body.action", &["$connect", "join"]), &payload), None);
        }
        assert_eq!(with_all.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["$default", "join"]);
        assert_eq!(selected(&routes(r"\$connect", &["$connect", "$default"]), "{}").as_deref(), Some("$default"));
    }

    #[test]
    fn without_default_nothing_matches() {
        let routes = routes("$request.body.action", &["join"]);
        assert_eq!(selected(&routes, "hello"), None);
        assert_eq!(selected(&routes, r#"{"action":"other"}"#), None);
        assert_eq!(selected(&routes, r#"{"action":"join"}"#).as_deref(), Some("join"));
    }

    // checklist: 102
    #[test]
    fn a_static_expression_sends_everything_one_way() {
        let fixed = routes("fixed", &["fixed", "$default"]);
        for payload in ["{}", r#"{"action":"join"}"#, "hello", ""] {
            assert_eq!(selected(&fixed, payload).as_deref(), Some("fixed"), "{payload}");
        }
        let unknown = routes("fixed${request.header.x}", &["fixed", "$default"]);
        assert_eq!(selected(&unknown, "{}").as_deref(), Some("fixed"));
        assert_eq!(selected(&unknown, "hello").as_deref(), Some("$default"));
    }

    // checklist: 110
    #[test]
    fn deep_nesting_goes_to_default() {
        let routes = routes("$request.body.action", &["join", "$default"]);
        let payload =
            |levels: usize| [r#"{"action":"join","x":"#, &"[".repeat(levels), &"]".repeat(levels), "}"].concat();
        assert_eq!(selected(&routes, &payload(500)).as_deref(), Some("join"));
        assert_eq!(selected(&routes, &payload(600)).as_deref(), Some("$default"));
    }

    #[test]
    fn of_equal_keys_the_last_stays() {
        let key = |text| RouteKey::parse(text).unwrap();
        let selection = Selection::parse("$request.body.action").unwrap();
        let routes = WebSocketRoutes::new(selection, [(key("b"), 1), (key("a"), 2), (key("b"), 3), (key("b"), 4)]);
        assert_eq!(routes.iter().map(|(_, target)| *target).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(routes.select(&Message::from_string(r#"{"action":"b"}"#)).map(|m| *m.target), Some(4));
    }
}

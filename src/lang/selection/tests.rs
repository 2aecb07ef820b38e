//! Selection expressions: the table of the specification, odd payloads, any text.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::lang::tests::{any_json, any_name};

const PAYLOAD: &str = r#"{"service": "chat", "action": "join", "n": 7, "f": 1.5, "t": true, "z": null,
    "data": {"room": "room1234"}, "list": ["a", "b"], "detail-type": "x", "a b": {"c/d": "q"}}"#;

fn evaluate(expression: &str, payload: &str) -> Result<String, NotJson> {
    let selection = Selection::parse(expression).unwrap();
    let message = Message::from_string(payload);
    let result = selection.evaluate(&message).map(Cow::into_owned);
    assert_eq!(selection.evaluate_with(&message, str::to_owned), result, "{expression} on {payload}");
    result
}

fn value(expression: &str, payload: &str) -> String {
    evaluate(expression, payload).unwrap()
}

// checklist: 84, 85, 86, 87, 88, 89, 90, 91, 92, 96, 101, 106, 107
#[test]
fn the_evaluation_table_holds() {
    for (expression, result) in [
        ("$request.body.action", "join"),
        ("${request.body.action}", "join"),
        ("${request.body.service}/${request.body.action}", "chat/join"),
        ("$request.body.service/$request.body.action", "chat/join"),
        ("${request.body.action}-${request.body.invalidPath}", "join-"),
        ("$request.body.data.room", "room1234"),
        ("$request.body.list", "[a, b]"),
        ("$request.body.list[1]", "b"),
        ("action", "action"),
        (r"\$default", "$default"),
        ("$request.body.n", "7"),
        ("$request.body.f", "1.5"),
        ("$request.body.t", "true"),
        ("$request.body.z", ""),
        ("$request.body.data", "{room=room1234}"),
        ("$request.body.missing", ""),
        ("$request.body.Action", ""),
        ("$request.body.detail-type", "x"),
    ] {
        assert_eq!(value(expression, PAYLOAD), result, "{expression}");
    }
}

#[test]
fn the_grammar_has_its_corners() {
    for (expression, result) in [
        ("$request.body.action $request.body.n", "join 7"),
        ("a$request.body.action{b}", "ajoin{b}"),
        (r"$request.body.action\$", "join$"),
        (r"\\$", r"\$"),
        (r"a\b", r"a\b"),
        ("'$request.body.action'", "join"),
        ("'fixed'", "fixed"),
        ("''fixed''", "'fixed'"),
        ("'", "'"),
        ("{}}", "{}}"),
        ("$request.body['detail-type']", "x"),
        ("$request.body['a b']['c/d']", "q"),
        ("${request.body['a b']['c/d']}!", "q!"),
        ("$request.body.list[*]", "[a, b]"),
        ("$request.body..room", "[room1234]"),
        ("$request.body.list[?(@ == 'b')]", "[b]"),
        ("${request.body.data['}']}", ""),
        ("$request.body.action.x", ""),
        ("$request.body.action $request.body.action.x", "join "),
        ("$request.body.data $request.body.data.room", "{room=room1234} room1234"),
        ("$request.body.action$request.body.action", "joinjoin"),
        ("x$request.header.a", "x"),
        ("${context.stage}${request.bodyish}${request}y", "y"),
        ("$default", ""),
        ("$integration.response.statuscode", ""),
        ("$integration.response.body.errorMessage", ""),
    ] {
        assert_eq!(value(expression, PAYLOAD), result, "{expression}");
    }
    assert_eq!(value("$request.body", " {\"a\" : 1} "), " {\"a\" : 1} ");
    assert_eq!(value("<$request.body>", "[1]").as_str(), "<", "`>` belongs to a bare name");
    assert_eq!(value("<${request.body}>", "[1]"), "<[1]>");
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for (expression, reason, offset) in [
        ("", "found nothing", 0),
        ("''", "found nothing", 1),
        ("cost: $", "write `\\$`", 6),
        ("$ 5", "write `\\$`", 0),
        ("'$'", "write `\\$`", 1),
        ("${request.body.a", "no closing `}`", 0),
        ("ab${}", "names no variable", 2),
        ("$request.body.list[0", "no closing `]`", 0),
        ("$request.body.", "expected a member name", 0),
        ("x$request.body.action.", "expected a member name", 1),
        ("$request.body.a()", "functions in a path", 0),
        ("$request.body.action\n", "has to stand in brackets", 0),
        ("$request.body[0:1:2:3]", "in brackets", 0),
    ] {
        let error = Selection::parse(expression).unwrap_err();
        assert!(error.message.contains(reason), "{expression}: {error}");
        assert_eq!(error.offset, offset, "{expression}: {error}");
    }
    assert!(Selection::parse(&"x".repeat(MAX_EXPRESSION_BYTES + 1)).is_err());
    assert!(Selection::parse(&"$a ".repeat(MAX_VARIABLES + 1)).is_err());
}

// checklist: 97, 98, 109, 110
#[test]
fn a_variable_needs_json() {
    let deep =
        |levels: usize| [r#"{"action":"join","x":"#, &"[".repeat(levels - 1), &"]".repeat(levels - 1), "}"].concat();
    for expression in ["$request.body.action", "$request.body.action-", "$request.body..action", "${request.body}"] {
        for payload in ["hello", "", "\u{feff}{\"action\":\"join\"}", "{\"action\":\"join\"", &deep(600)] {
            assert_eq!(evaluate(expression, payload), Err(NotJson), "{expression} on {payload:.40}");
        }
        assert!(evaluate(expression, &deep(512)).is_ok() && evaluate(expression, &deep(513)).is_err());
    }
    assert_eq!(evaluate("$request.body.action", &deep(500)), Ok("join".to_owned()));
    for expression in ["fixed", "${context.stage}"] {
        assert!(evaluate(expression, "hello").is_ok(), "{expression}");
    }
    let bytes = Message::text_from(bytes::Bytes::from_static(b"{\"action\":\"a\",\"b\":\"\xff\"}"));
    assert_eq!(Selection::parse("$request.body.action").unwrap().evaluate(&bytes), Err(NotJson));
}

// checklist: 110
#[test]
fn hostile_nesting_never_reaches_the_stacks_end() {
    let check = || {
        for expression in ["$request.body.a", "$request.body.a.a.a-$request.body.b", "$request.body..a"] {
            for open in ["[", "{\"a\":", "{a:", "{\"a\":["] {
                assert_eq!(evaluate(expression, &open.repeat(131_072 / open.len())), Err(NotJson));
            }
        }
        for expression in ["$request.body.a", "x${request.body.a}", "$request.body..a"] {
            let payload = format!("{}1{}", r#"{"a":"#.repeat(512), "}".repeat(512));
            assert!(evaluate(expression, &payload).is_ok(), "{expression}");
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

// checklist: 99
#[test]
fn json_that_is_no_object_has_no_members() {
    for payload in ["[1,2]", "7", "-7", "0.5", "true", "\"join\"", "null", " [] "] {
        assert_eq!(value("$request.body.action", payload), "", "{payload}");
        assert_eq!(value("<${request.body.action}${request.body.b}>", payload), "<>", "{payload}");
    }
}

// checklist: 103, 105, 108
#[test]
fn odd_payloads_give_what_the_specification_chose() {
    for (payload, result) in [
        (r#"{"action":"send", body:"x"}"#, "send"),
        (r"{'action':'send'}", "send"),
        (r#"{"action":"$request.body.x", "x":"y"}"#, "$request.body.x"),
        (r#"{"action":"a","action":"b"}"#, "b"),
        (r#"{action:"a",'action':"b"}"#, "b"),
        (r#"{"action":"\u006aoin\n"}"#, "join\n"),
        (r#"{"act\u0069on":"join"}"#, "join"),
        (r#"{"action":"a\ud800"}"#, "a\u{fffd}"),
        (r#"{"action":"a","b":"\ud800","c":1e999}"#, "a"),
        (r#"{"action":9007199254740993}"#, "9007199254740993"),
        (r#"{"action":"join "}"#, "join "),
    ] {
        assert_eq!(value("$request.body.action", payload), result, "{payload}");
        assert_eq!(value("$request.body..action", payload), format!("[{result}]"), "{payload}");
    }
}

struct Answer(Message);

impl ResponseParts for Answer {
    fn status(&self) -> u16 {
        404
    }
    fn header(&self, name: &str) -> Vec<&str> {
        if name.eq_ignore_ascii_case("x-kind") { vec!["a", "b"] } else { Vec::new() }
    }
    fn body(&self) -> &Message {
        &self.0
    }
}

#[test]
fn a_response_has_status_headers_and_body() {
    let answer = Answer(Message::from_string(r#"{"errorMessage":"Denied","e":[{"c":1}]}"#));
    let body = Message::from_string("not json");
    for (expression, result) in [
        ("$integration.response.statuscode", Ok("404")),
        ("${integration.response.header.X-Kind}", Ok("b")),
        ("$integration.response.header.X-None", Ok("")),
        ("$integration.response.multivalueheader.x-kind", Ok("[a, b]")),
        ("$integration.response.multivalueheader.x-none", Ok("")),
        ("$integration.response.body.errorMessage", Ok("Denied")),
        ("$integration.response.body.e[0].c", Ok("1")),
        ("$integration.response.body.none", Ok("")),
        (r"\$default", Ok("$default")),
        ("$integration.response.statuscode$request.body.a", Err(NotJson)),
    ] {
        let selection = Selection::parse(expression).unwrap();
        assert_eq!(selection.evaluate_response(&body, &answer), result.map(Cow::from), "{expression}");
    }
    let selection = Selection::parse("$request.body.kind-$integration.response.statuscode").unwrap();
    let body = Message::from_string(r#"{"kind-":"k"}"#);
    assert_eq!(selection.evaluate_response(&body, &answer), Ok("k404".into()));
    let plain = Answer(Message::from_string("plain"));
    let selection = Selection::parse("$integration.response.body").unwrap();
    assert_eq!(selection.evaluate_response(&body, &plain), Ok("plain".into()));
    let selection = Selection::parse("$integration.response.body.a").unwrap();
    assert_eq!(selection.evaluate_response(&body, &plain), Ok("".into()));
}

#[test]
fn a_result_has_a_limit() {
    let payload = format!("[\"{}\"]", "x".repeat(100_000));
    let result = value(&"${request.body}".repeat(MAX_VARIABLES), &payload);
    assert_eq!(result.len(), MAX_RESULT_BYTES / payload.len() * payload.len());
}

proptest! {
    #[test]
    fn no_expression_panics(
        expression in r"(\$|\{|\}|\\|'|\.|\[|\]|request\.body|\*|\?|@|integration\.response\.header|a|0| |é){0,12}",
        value in any_json(),
    ) {
        if let Ok(selection) = Selection::parse(&expression) {
            let _result = selection.evaluate(&Message::from_string(value.to_string()));
        }
    }

    #[test]
    fn static_text_round_trips(text in r"[ -~é$\\{}']{1,20}") {
        let mut printed = text.replace('$', r"\$");
        if text.starts_with('\'') && text.ends_with('\'') && text.len() > 1 {
            printed = format!("'{printed}'");
        }
        let selection = Selection::parse(&printed).unwrap();
        prop_assert_eq!(selection.as_static(), Some(text.as_str()));
        prop_assert_eq!(selection.as_str(), printed.as_str());
    }

    #[test]
    fn one_pass_and_tree_agree(value in any_json(), names in prop::collection::vec(any_name(), 1..4)) {
        let quoted: Vec<String> = names.iter().map(|name| json!([name]).to_string()).collect();
        let path = quoted.concat();
        let message = Message::from_string(value.to_string());
        let tree: Value = serde_json::from_str(&value.to_string()).unwrap();
        let expected = JsonPath::compile(&path).unwrap().find(&tree).to_text().unwrap_or_default();
        for (before, after) in [("", ""), ("<", ">"), ("", "$request.body[0]")] {
            let selection = Selection::parse(&format!("{before}${{request.body{path}}}{after}")).unwrap();
            let streamed = matches!(selection.plan, Plan::One(_) | Plan::Stream(_));
            prop_assert_eq!(streamed, after.len() < 2);
            let result = selection.evaluate(&message).unwrap();
            prop_assert!(result.starts_with(&format!("{before}{expected}")), "{} {}", result, expected);
        }
    }
}

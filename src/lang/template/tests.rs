//! Templates: what renders, and what is refused when they are read.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

/// Fixed values; query and header only where `connect`.
struct Event {
    connect: bool,
}

impl Variables for Event {
    fn context(&self, path: &str) -> Option<Variable<'_>> {
        match path {
            "connectionId" => Some(Variable::Text(Cow::Borrowed("L0SM9cOFvHcCIhw="))),
            "messageId" => Some(Variable::Text(Cow::Borrowed("L0SPDfHOPHcCIhw="))),
            "routeKey" => Some(Variable::Text(Cow::Borrowed("put"))),
            "identity.sourceIp" => Some(Variable::Text(Cow::Borrowed("192.0.2.1"))),
            "requestTimeEpoch" => Some(Variable::Number(1_650_301_661_112)),
            _ => None,
        }
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        matches!(name, "backend" | "a b").then_some("b1")
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        match name.to_ascii_lowercase().as_str() {
            "x" if self.connect => vec!["header x"],
            "y" if self.connect => vec!["header y", "last y"],
            _ => Vec::new(),
        }
    }

    fn query(&self, name: &str) -> Vec<&str> {
        if name == "x" && self.connect { vec!["query x", "last x"] } else { Vec::new() }
    }
}

const PAYLOAD: &str = r#"{"action":"put", "data":{"a":1},"s":"t\"x","list":[{"n":"x"},{"n":"y"}],"null":null}"#;

fn render(template: &str, payload: &str) -> String {
    let template = Template::compile(template).unwrap_or_else(|error| panic!("{template}: {error}"));
    template.render(&Event { connect: false }, &Message::from_string(payload)).unwrap()
}

// checklist: 298, 300
#[test]
fn the_specifications_example_renders() {
    assert_eq!(
        render(
            r#"{"id":"$context.connectionId","when":$context.requestTimeEpoch,"data":$input.json('$.data')}"#,
            r#"{"action":"put","data":{"a":1}}"#
        ),
        r#"{"id":"L0SM9cOFvHcCIhw=","when":1650301661112,"data":{"a":1}}"#
    );
    assert_eq!(render("$context.routeKey $context.messageId", ""), "put L0SPDfHOPHcCIhw=");
}

// checklist: 300
#[test]
fn input_gives_text_json_and_values() {
    for (template, text) in [
        ("$input.body", PAYLOAD),
        ("$input.json('$.data')", r#"{"a":1}"#),
        ("$input.json('$.s')", r#""t\"x""#),
        ("$input.json('$.missing')", r#""""#),
        ("$input.json('$.null')", "null"),
        ("$input.json('$.list[*].n')", r#"["x","y"]"#),
        ("$input.json('$.list[0:1].n')", r#"["x"]"#),
        ("$input.json('$..nope')", "[]"),
        ("$input.json(\"$.data.a\")", "1"),
        ("$input.json( '$.data.a' )", "1"),
        ("$input.path('$.s')", "t\"x"),
        ("$input.path('$.data')", "{a=1}"),
        ("$input.path('$.list')", r#"[{"n":"x"},{"n":"y"}]"#),
        ("$input.path('$.list[0]')", "{n=x}"),
        ("$input.path('$.missing')", ""),
        ("$input.path('$.null')", ""),
    ] {
        assert_eq!(render(template, PAYLOAD), text, "{template}");
    }
    let compact = r#"{"action":"put","data":{"a":1},"s":"t\"x","list":[{"n":"x"},{"n":"y"}],"null":null}"#;
    assert_eq!(render("$input.json('$')", PAYLOAD), compact);
}

#[test]
fn without_a_payload_input_is_an_empty_object() {
    assert_eq!(render("[$input.body][$input.json('$')][$input.path('$.a')]", ""), "[][{}][]");
    assert_eq!(render("$input.json('$.a')$input.json('$')", "not json"), r#""""""#);
    assert_eq!(render("$input.body", "not json"), "not json");
}

// checklist: 301
#[test]
fn parameters_come_from_query_then_header() {
    let template = Template::compile("$input.params('x')|$input.params(\"Y\")|$input.params('z')").unwrap();
    let nothing = Message::from_string("");
    assert_eq!(template.render(&Event { connect: true }, &nothing).unwrap(), "last x|last y|");
    assert_eq!(template.render(&Event { connect: false }, &nothing).unwrap(), "||");
}

// checklist: 287
#[test]
fn stage_variables_have_three_spellings() {
    let template = "$stageVariables.backend ${stageVariables.backend} $stageVariables['a b'] \
                    ${stageVariables['backend']} $stageVariables[\"backend\"] <$stageVariables.none>";
    assert_eq!(render(template, ""), "b1 b1 b1 b1 b1 <>");
}

#[test]
fn references_end_where_velocity_ends_them() {
    for (template, text) in [
        ("$context.routeKey.", "put."),
        ("$context.routeKey}.", "put}."),
        ("${context.routeKey}.x", "put.x"),
        ("${context.routeKey}s", "puts"),
        ("$!context.routeKey $!{context.routeKey}", "put put"),
        ("$context.routeKey-", "put-"),
        ("$context.routeKey-x", ""),
        ("${context.routeKey}-x", "put-x"),
        ("$context.routeKey$context.routeKey", "putput"),
        ("$context.identity.sourceIp, $context.identity", "192.0.2.1, "),
        ("<$context.none$!context.none.x>", "<>"),
        ("${input.json('$.data')}", r#"{"a":1}"#),
        ("$input.json('$.data').", "{\"a\":1}."),
        ("$input.body ${input.body}", &format!("{PAYLOAD} {PAYLOAD}")),
    ] {
        assert_eq!(render(template, PAYLOAD), text, "{template}");
    }
}

#[test]
fn what_only_looks_like_velocity_is_text() {
    for text in [
        "$5",
        "$",
        "$$",
        "a $ b",
        "${}",
        "$!",
        "$.a",
        "cost: $5.00 #1",
        "#",
        "#12ab34",
        "# end",
        "#iffy",
        "\\",
        "\\n",
        "\\$5",
        "\\# end",
        "$(x)",
        "é$é",
        "{\"a\": \"#\"}",
        "\\\\x",
        "",
    ] {
        assert_eq!(render(text, ""), text);
    }
}

#[test]
fn backslashes_escape_as_in_velocity() {
    for (template, text) in [
        (r"\$context.routeKey", "$context.routeKey"),
        (r"\\$context.routeKey", r"\put"),
        (r"\\\$context.routeKey", r"\$context.routeKey"),
        (r"\${context.routeKey}", "${context.routeKey}"),
        (r"\$!context.routeKey", "$!context.routeKey"),
        (r"\$util.escapeJavaScript('x')", "$util.escapeJavaScript('x')"),
        (r"\$unknown \${ref}", "$unknown ${ref}"),
        (r"\#if($context.routeKey)", "#if(put)"),
        (r"a\b", r"a\b"),
    ] {
        assert_eq!(render(template, ""), text, "{template}");
    }
}

#[test]
fn comments_leave_nothing() {
    assert_eq!(render("a## $nothing #if\nb#* $x\n #set *#c", ""), "abc");
    assert_eq!(render("a##", ""), "a");
}

#[test]
fn what_is_not_supported_names_its_place() {
    for (template, line, column, found) in [
        ("#set($a = 1)", 1, 1, "`#set` is not supported yet"),
        ("{\n  é#if($x)", 2, 4, "`#if` is not supported yet"),
        ("#foreach($x in $y)", 1, 1, "`#foreach`"),
        ("#{else}", 1, 1, "`#else`"),
        ("#end", 1, 1, "`#end`"),
        ("#define($x)", 1, 1, "`#define`"),
        ("#[[x]]#", 1, 1, "`#[[`"),
        ("a #* b", 1, 3, "no closing `*#`"),
        ("\n\n \"$foo\"", 3, 3, "`$foo` is not supported yet"),
        ("$util.urlEncode('x')", 1, 1, "`$util` is not supported yet"),
        ("${foo}", 1, 1, "`$foo`"),
        ("$context", 1, 1, "expected a name after `$context`"),
        ("$context.", 1, 1, "expected a name after `$context`"),
        ("${context}", 1, 1, "expected a name after `$context`"),
        ("${context.stage", 1, 1, "no closing `}`"),
        ("${context.stage x}", 1, 1, "no closing `}`"),
        ("${context.stage|'x'}", 1, 16, "alternate values"),
        ("$context.stage.length()", 1, 22, "methods are not supported yet"),
        ("$context.stage[0]", 1, 15, "an index is not supported yet"),
        ("$stageVariables", 1, 1, "expected `$stageVariables.name`"),
        ("$stageVariables[x]", 1, 1, "expected `$stageVariables.name`"),
        ("$stageVariables.get('x')", 1, 1, "expected `$stageVariables.name`"),
        ("$input", 1, 1, "`$input` is not supported yet"),
        ("$input.foo", 1, 1, "`$input.foo` is not supported yet"),
        ("$input.params()", 1, 14, "expected `('…')`"),
        ("$input.json($x)", 1, 12, "expected `('…')`"),
        ("$input.json(\"$.a[$i]\")", 1, 12, "expected `('…')`"),
        ("$input.json('$.a'", 1, 12, "expected `('…')`"),
        ("$input.json('$.a[')", 1, 1, "needs a JSONPath"),
        ("$input.path('$.a').size()", 1, 24, "methods are not supported yet"),
        ("$input.path('$.a').b", 1, 19, "properties of it"),
        ("$input.path('$.a')[0]", 1, 19, "an index"),
        ("$input.body.x", 1, 12, "properties of it"),
    ] {
        let error = Template::compile(template).unwrap_err();
        assert!(error.message.contains(found), "{template}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{template}: {error}");
    }
    assert!(Template::compile(&"x".repeat(MAX_TEMPLATE_BYTES + 1)).is_err());
    assert!(Template::compile(&"x".repeat(MAX_TEMPLATE_BYTES)).is_ok());
}

#[test]
fn output_has_a_limit() {
    let payload = Message::from_string(format!("[\"{}\"]", "x".repeat(131_000)));
    for reference in ["$input.body", "$input.json('$')", "$input.path('$')"] {
        let render =
            |count| Template::compile(&reference.repeat(count)).unwrap().render(&Event { connect: false }, &payload);
        assert!(render(8).is_ok(), "{reference}");
        assert_eq!(render(9), Err(RenderError::TooLarge { limit: MAX_OUTPUT_BYTES }), "{reference}");
    }
}

proptest! {
    #[test]
    fn no_template_panics(
        template in r#"(\$|!|\{|\}|\\|#|'|"|\(|\)|\.|\[|context|input|json|path|stageVariables|if|\*|a|\n|é| ){0,16}"#,
        value in crate::lang::tests::any_json(),
    ) {
        match Template::compile(&template) {
            Ok(compiled) => {
                let _text = compiled.render(&Event { connect: true }, &Message::from_string(value.to_string()));
            }
            Err(error) => {
                let lines: Vec<&str> = template.split('\n').collect();
                prop_assert!((1..=lines.len()).contains(&error.line));
                prop_assert!((1..=lines[error.line - 1].chars().count() + 1).contains(&error.column));
            }
        }
    }

    #[test]
    fn text_without_signs_passes(text in r"[^$#\\]{0,40}") {
        prop_assert_eq!(render(&text, ""), text);
    }
}

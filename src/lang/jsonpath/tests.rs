//! Paths, filters and their bounds.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::lang::tests::any_json;

fn found(path: &str, root: &Value) -> Value {
    match JsonPath::compile(path).unwrap().find(root) {
        Found::Nothing => json!("nothing"),
        Found::One(value) => value.clone(),
        Found::Many(values) => json!({"many": values}),
    }
}

#[test]
fn every_spelling_of_a_member_path_is_the_same_path() {
    let root = json!({"detail-type": {"1a": {"b c": "x"}}});
    for path in [
        "$.detail-type.1a['b c']",
        ".detail-type.1a['b c']",
        "detail-type.1a[\"b c\"]",
        "['detail-type']['1a']['b c']",
        "$['detail-type'].1a.['b c']",
        "$.detail-type[ '1a' ]['b\\u0020c']",
    ] {
        let compiled = JsonPath::compile(path).unwrap();
        assert_eq!(compiled.members().map(<[_]>::len), Some(3), "{path}");
        assert_eq!(compiled.find(&root), Found::One(&json!("x")), "{path}");
    }
    for path in ["$", ""] {
        let compiled = JsonPath::compile(path).unwrap();
        assert!(compiled.is_root() && compiled.first(&root) == Some(&root), "{path}");
    }
}

#[test]
fn paths_find_what_they_name() {
    let root = json!({
        "list": ["a", "b", "c", "d"],
        "empty": [], "null": null, "a:b": 1, "é": 2, "back\\slash": 3,
        "orders": [{"id": 1, "kind": "x", "tags": ["t"]}, {"id": 2, "kind": "y", "done": true}, {"id": 3, "kind": "x"}],
        "want": "y"
    });
    for (path, value) in [
        ("$.list[1]", json!("b")),
        ("list[-1]", json!("d")),
        ("$.list[4]", json!("nothing")),
        ("$.list[-5]", json!("nothing")),
        ("$.list.a", json!("nothing")),
        ("$.want[0]", json!("nothing")),
        ("$.null", json!(null)),
        ("$.null.x", json!("nothing")),
        ("$.a:b", json!(1)),
        ("$.é", json!(2)),
        ("$.back\\slash", json!(3)),
        ("$.list[*]", json!({"many": ["a", "b", "c", "d"]})),
        ("$.empty[*]", json!({"many": []})),
        ("$.list[1:3]", json!({"many": ["b", "c"]})),
        ("$.list[-2:]", json!({"many": ["c", "d"]})),
        ("$.list[::2]", json!({"many": ["a", "c"]})),
        ("$.list[::-1]", json!({"many": ["d", "c", "b", "a"]})),
        ("$.list[2:0:-1]", json!({"many": ["c", "b"]})),
        ("$.list[0:9007199254740991:9007199254740991]", json!({"many": ["a"]})),
        ("$.list[::0]", json!({"many": []})),
        ("$.list[0,2]", json!({"many": ["a", "c"]})),
        ("$['want','a:b']", json!({"many": ["y", 1]})),
        ("$.orders[*].id", json!({"many": [1, 2, 3]})),
        ("$.orders.*.id", json!({"many": [1, 2, 3]})),
        ("$..id", json!({"many": [1, 2, 3]})),
        ("..kind", json!({"many": ["x", "y", "x"]})),
        ("$..[0]", json!({"many": ["a", {"id": 1, "kind": "x", "tags": ["t"]}, "t"]})),
        ("$.orders[?(@.kind == 'x')].id", json!({"many": [1, 3]})),
        ("$.orders[?@.id > 1 && !(@.kind == 'x')].id", json!({"many": [2]})),
        ("$.orders[?(@.done)].id", json!({"many": [2]})),
        ("$.orders[?(@.kind == $.want)].id", json!({"many": [2]})),
        ("$.orders[?count(@.tags[*]) == 1].id", json!({"many": [1]})),
        ("$.list[?(@ == 'c' || @ == ']')]", json!({"many": ["c"]})),
        ("$.orders[?(@.id == 9)].id", json!({"many": []})),
        ("$.orders[?(@.id >= 2.0 && @.id < 3)].id", json!({"many": [2]})),
        ("$.orders[?(@.id <= 1 || @.id > 2)].id", json!({"many": [1, 3]})),
        ("$.orders[?(@.done == null)].id", json!({"many": []})),
        ("$.orders[?(@.done != true)].id", json!({"many": [1, 3]})),
        ("$.orders[?(@.nope == @.none)].id", json!({"many": [1, 2, 3]})),
        ("$.orders[?(@.kind < 5)].id", json!({"many": []})),
        ("$.orders[?!@.done].id", json!({"many": [1, 3]})),
        ("$.orders[?(@.tags[0] == 't')].id", json!({"many": [1]})),
        ("$.orders[?@.tags[?(@ == 't')]].id", json!({"many": [1]})),
        ("$.orders[?length(@) == 2].id", json!({"many": [3]})),
        ("$.orders[?length(@.kind) == 1].id", json!({"many": [1, 2, 3]})),
        ("$.orders[?value(@..[0]) == 't'].id", json!({"many": [1]})),
        ("$[?(@ == 'y')]", json!({"many": ["y"]})),
    ] {
        assert_eq!(found(path, &root), value, "{path}");
    }
}

#[test]
fn what_is_no_path_is_refused_with_a_reason() {
    for (path, reason) in [
        ("$.", "expected a member name"),
        ("a..", "expected a member name"),
        ("$...a", "expected a member name"),
        ("$a", "expected `.` or `[`"),
        ("a.b c", "has to stand in brackets"),
        ("a.\"b\"", "has to stand in brackets"),
        ("a.length()", "functions in a path are not supported yet"),
        ("a[", "not closed"),
        ("a['b]", "not closed"),
        ("a[]", "in brackets"),
        ("a[x]", "in brackets"),
        ("a[(@.length-1)]", "in brackets"),
        ("a[?(@.b =~ /x/)]", "in brackets"),
        ("a[0]b", "expected `.` or `[`"),
        ("a[?length(@.b)]", "has to be compared"),
        ("a[?@.b == length(length(@))]", "a function within a function"),
        ("a[?@.b[?search(@.c, 'x')]]", "length, count and value"),
        ("a[?in(@.b, $.c)]", "length, count and value"),
        ("a[?match(@.b, 'x')]", "length, count and value"),
        ("a[?length(length(length(length(length(length(length(@)))))))]", "within each other"),
    ] {
        let error = JsonPath::compile(path).unwrap_err().to_string();
        assert!(error.contains(reason), "{path}: {error}");
    }
    assert!(JsonPath::compile(&"a".repeat(MAX_PATH_BYTES + 1)).is_err());
    assert!(JsonPath::compile(&".a".repeat(MAX_STEPS + 1)).is_err());
}

#[test]
fn many_descents_end_at_the_limit_and_not_at_the_stack() {
    let check = || {
        let mut deep = json!(1);
        for _ in 0..511 {
            deep = json!({"a": deep});
        }
        assert_eq!(JsonPath::compile("$..a").unwrap().query(&deep).len(), 511);
        let many = JsonPath::compile("$..a..a..a..a..a").unwrap().query(&deep).len();
        assert!(many > 0 && many < MAX_VISITS);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"[$.\[\]'"?@*a-c0-9:,()=<!&| \\é-]{0,30}"#, value in any_json()) {
        if let Ok(path) = JsonPath::compile(&text) {
            path.find(&value);
        }
    }

    #[test]
    fn any_name_can_be_quoted(name in r"[^'\\\p{C}]{0,8}") {
        let root = json!({&name: 1});
        let path = JsonPath::compile(&format!("$['{name}']")).unwrap();
        prop_assert_eq!(path.find(&root), Found::One(&json!(1)));
    }
}

//! Documents with mistakes: every one is told, at its place.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "one field stands there for the schema alone")]
struct Sample {
    #[schemars(required, regex(pattern = "^[a-z]+$"), extend("errorMessage" = "lower-case letters"))]
    name: Option<String>,
    #[schemars(range(min = 1, max = 9))]
    count: Option<u8>,
    on: Option<bool>,
    color: Option<Color>,
    #[schemars(extend("maxItems" = 2))]
    list: Option<Vec<String>>,
    inner: Option<Box<Sample>>,
    #[schemars(extend("x-unsupported" = "is for later"))]
    later: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Color {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    #[schemars(extend("x-unsupported" = "is for later"))]
    Blue,
}

fn variables(name: &str) -> Option<String> {
    (name == "NAME").then(|| "hunter2".to_owned())
}

fn read(text: &str) -> (Option<Document<Sample>>, Vec<String>) {
    let mut report = Report::new("f.yaml");
    let folder = Path::new("/nonexistent");
    let document = Document::read(text.as_bytes(), &generate::<Sample>(), folder, &variables, &mut report);
    (document, report.into_problems().iter().map(ToString::to_string).collect())
}

#[track_caller]
fn assert_problems(text: &str, expected: &[&str]) {
    assert_eq!(read(text).1, expected, "{text}");
}

#[test]
fn the_check_knows_every_keyword_of_a_schema() {
    assert_eq!(unchecked(&generate::<Sample>()), [""; 0]);
}

#[test]
fn a_good_document_is_read_from_yaml_and_json() {
    for text in [
        "name: a # yes\ncount: 3\non: True\ncolor: green\nlist: [x, '7']\ninner:\n  name: b\n",
        "{\"name\": \"a\", \"count\": 3, \"on\": true,\n\t\"color\": \"green\", \"list\": [\"x\", \"7\"], \"inner\": {\"name\": \"b\"}}",
    ] {
        let (document, problems) = read(text);
        assert_eq!(problems, [""; 0]);
        let sample = document.unwrap().content;
        assert_eq!((sample.name.as_deref(), sample.count, sample.on), (Some("a"), Some(3), Some(true)));
        assert_eq!(sample.list.unwrap(), ["x", "7"]);
        assert_eq!(sample.inner.unwrap().name.as_deref(), Some("b"));
    }
}

#[test]
fn every_problem_is_told_with_its_place() {
    assert_problems(
        "name: A7\ncount: 10\non: yes\ncolor: gren\nlist: [a, 1, c]\nInner: {}\nlater: 1\n",
        &[
            "f.yaml:1:7: `name` is `A7`, expected lower-case letters",
            "f.yaml:2:8: `count` is 10, expected a whole number from 1 to 9",
            "f.yaml:3:5: `on` is `yes`, expected `true` or `false`",
            "f.yaml:4:8: `color` is `gren`, expected one of `red`, `green`; did you mean `green`?",
            "f.yaml:5:7: `list` has 3 items, expected at most 2",
            "f.yaml:5:11: an item of `list` is 1, expected a text",
            "f.yaml:6:1: unknown key `Inner`, expected `inner`?",
            "f.yaml:7:1: `later` is for later, expected it to be left out",
        ],
    );
}

#[test]
fn what_is_missing_is_told_at_the_object_that_lacks_it() {
    assert_problems("count: 1\n", &["f.yaml:1:1: `name` is missing, expected lower-case letters"]);
    assert_problems("# nothing\n", &["f.yaml:1:1: `name` is missing, expected lower-case letters"]);
    assert_problems(
        "name: a\ninner:\n  count: 1.5\n  zzzzzzz: 1\n",
        &[
            "f.yaml:3:3: `name` is missing, expected lower-case letters",
            "f.yaml:3:10: `count` is 1.5, expected a whole number from 1 to 9",
            "f.yaml:4:3: unknown key `zzzzzzz`, expected one of `name`, `count`, `on`, `color`, `list`, `inner`",
        ],
    );
}

#[test]
fn what_is_rejected_is_left_out_and_the_rest_read() {
    let (document, problems) = read("name: a\ncount: many\nlist: [x, 1, y]\n");
    let document = document.unwrap();
    assert_eq!(problems.len(), 3);
    assert_eq!((document.content.count, document.content.list.unwrap()), (None, vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!(document.root.at("list").items().count(), 2);
}

#[test]
fn the_document_itself_may_be_the_problem() {
    assert_problems("- a\n", &["f.yaml:1:1: the document is a list, expected an object"]);
    assert_problems("name: a\n---\nname: b\n", &["f.yaml:2:1: a second document in one file, expected only one"]);
    let (document, problems) = read("name: [a\nlist: }\n");
    assert!(document.is_none() && problems.len() == 1 && problems[0].contains("not YAML"), "{problems:?}");
    let mut report = Report::new("f.yaml");
    let bytes = b"name: a\ncount: \xff";
    assert!(Document::<Sample>::read(bytes, &generate::<Sample>(), Path::new(""), &variables, &mut report).is_none());
    assert_eq!(report.into_problems().to_string(), "f.yaml:2:8: not UTF-8");
}

#[test]
fn choices_that_are_for_later_say_so() {
    assert_problems(
        "name: a\ncolor: blue\n",
        &["f.yaml:2:8: `color` `blue` is for later, expected one of `red`, `green`"],
    );
}

#[test]
fn a_key_without_value_is_a_problem() {
    assert_problems("name: a\ncount:\n", &["f.yaml:2:6: `count` is nothing, expected a whole number from 1 to 9"]);
}

#[test]
fn duplicate_and_merged_keys_are_problems() {
    assert_problems("name: a\non: true\nname: b\n", &["f.yaml:3:1: duplicate key `name`, expected each key once"]);
    assert_problems(
        "name: a\ninner: &x {name: b}\n<<: *x\n",
        &["f.yaml:3:1: a merge key `<<`, expected the keys themselves or an alias for the whole object"],
    );
    assert_problems("name: !secret a\n", &["f.yaml:1:15: tag `!secret`, expected no tags"]);
}

#[test]
fn an_alias_stands_for_its_anchor() {
    let (document, problems) = read("name: &n a\nlist: [*n, *n]\ninner: {name: *n}\n");
    assert_eq!(problems, [""; 0]);
    assert_eq!(document.unwrap().content.list.unwrap(), ["a", "a"]);
    assert_problems(
        "name: a\ninner: &i {name: b, inner: *i}\n",
        &["f.yaml:2:28: an alias inside what it stands for, expected it after"],
    );
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = "name: a\nlist:\n - &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        writeln!(bomb, " - &a{level} [{}]", [alias.as_str(); 10].join(", ")).unwrap();
    }
    let (document, problems) = read(&bomb);
    assert!(document.is_none() && problems[0].contains("too large, aliases counted"), "{problems:?}");

    let long = format!("name: a\nlist: [&l {}, {}*l]\n", "x".repeat(1 << 20), "*l, ".repeat(100));
    assert!(read(&long).1[0].contains("too large"), "text counts too");

    for deep in [format!("list: {}", "[".repeat(100)), format!("{}name: a", "inner: {".repeat(100))] {
        let (document, problems) = read(&deep);
        assert!(document.is_none() && problems[0].contains("nested too deeply"), "{problems:?}");
    }
    let mut ladder = "name: a\nlist:\n - &a0 [x]\n".to_owned();
    for level in 1..100 {
        writeln!(ladder, " - &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(read(&ladder).1[0].contains("nested too deeply"), "through aliases too");
}

#[test]
fn references_are_replaced_and_never_shown() {
    let (document, problems) = read("name: a\nlist: ['x${env:NAME}y${env:NAME}', '${request.body.a}']\n");
    assert_eq!(problems, [""; 0]);
    assert_eq!(document.unwrap().content.list.unwrap(), ["xhunter2yhunter2", "${request.body.a}"]);

    let (_, problems) = read("name: ${env:NAME}\ncolor: ${env:NAME}\ncount: ${env:NAME}\n");
    assert_eq!(
        problems,
        [
            "f.yaml:1:7: `name` is `${env:NAME}`, expected lower-case letters",
            "f.yaml:2:8: `color` is `${env:NAME}`, expected one of `red`, `green`",
            "f.yaml:3:8: `count` is `${env:NAME}`, expected a whole number from 1 to 9",
        ]
    );
}

#[test]
fn references_that_lead_nowhere_are_problems() {
    assert_problems(
        "name: a\nlist: ['${env:MISSING}', '${env:NAME']\ninner: {name: '${env:a b}'}\n",
        &[
            "f.yaml:2:8: environment variable `MISSING` is not set, expected by `${env:MISSING}`",
            "f.yaml:2:26: `${env:` without its end, expected a `}`",
            "f.yaml:3:15: `${env:a b}` names no variable, expected letters, digits and `_`",
        ],
    );
    assert!(read("name: ${file:key}").1[0].starts_with("f.yaml:1:7: `${file:key}` cannot be read: "));
}

#[test]
fn a_file_reference_is_relative_and_loses_its_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "${env:NAME}\n").unwrap();
    let mut report = Report::new("f.yaml");
    let text = b"name: a\nlist: ['<${file:key}>']";
    let document: Document<Sample> =
        Document::read(text, &generate::<Sample>(), folder.path(), &variables, &mut report).unwrap();
    assert_eq!(document.content.list.unwrap(), ["<${env:NAME}>"], "what a reference yields is not looked at again");
}

#[test]
fn places_inside_texts_are_found() {
    let text = "name: abc\ninner:\n  name: 'abc'\nlist:\n  - |\n\n    first\n      second\n  - \"a\\tb\"\n  - >\n    folded\n    text\n";
    let (document, problems) = read(text);
    assert_eq!(problems, ["f.yaml:5:3: `list` has 3 items, expected at most 2"]);
    let root = document.unwrap().root;
    let place = |line, column| Some(Place { line, column });
    assert_eq!(root.at("name").place_inside(1, 3), place(1, 9));
    assert_eq!(root.at("inner").at("name").place_inside(1, 2), place(3, 11));
    let items: Vec<&Node> = root.at("list").items().collect();
    assert_eq!((items[0].place_inside(2, 1), items[0].place_inside(3, 3)), (place(7, 5), place(8, 7)));
    assert_eq!((items[1].place_inside(1, 1), items[2].place_inside(1, 1)), (None, None));
}

#[test]
fn a_message_is_one_line_of_bounded_length() {
    let (_, problems) = read(&format!("name: a\n\"b\\n\\e[1m\": 1\n? {}\n: 1\n", "c".repeat(10_000)));
    assert!(problems[0].contains("unknown key `b\\n\\u{1b}[1m`"), "{problems:?}");
    assert!(problems[1].chars().count() < 1_100 && problems[1].ends_with('…'), "{problems:?}");
}

//! What documents say, what is no document, and properties of both.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const OWN: &str = "arn:aws:execute-api:us-east-1:123456789012:chat";

impl Facts for BTreeMap<&str, Vec<&str>> {
    fn values(&self, key: &str) -> Vec<Cow<'_, str>> {
        self.get(key).into_iter().flatten().map(|value| Cow::Borrowed(*value)).collect()
    }
}

fn policy(document: &Value) -> Policy {
    Policy::parse(document, Kind::Identity).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn statements(statements: &Value) -> Policy {
    policy(&json!({"Version": "2012-10-17", "Statement": statements}))
}

fn ask(policy: &Policy, action: &str, resource: &str) -> Verdict {
    ask_with(policy, action, resource, &[], &())
}

fn ask_with(policy: &Policy, action: &str, resource: &str, principals: &[&str], facts: &dyn Facts) -> Verdict {
    policy.evaluate(&Question { action, resource, own: OWN, principals, facts })
}

#[test]
fn an_explicit_deny_wins_and_silence_is_no_allow() {
    let policy = statements(&json!([
        {"Effect": "Deny", "Action": "a:Do", "Resource": "arn:x:secret"},
        {"Sid": "All", "Effect": "Allow", "Action": ["a:Do", "a:See"], "Resource": "*"},
        {"Effect": "Deny", "Action": "a:See", "Resource": "arn:x:hidden"}]));
    assert_eq!(ask(&policy, "a:Do", "arn:x:open"), Verdict::Allow);
    assert_eq!(ask(&policy, "A:DO", "arn:x:open"), Verdict::Allow, "the case of an action does not matter");
    assert_eq!(ask(&policy, "a:Do", "arn:x:SECRET"), Verdict::Allow, "that of a resource does");
    assert_eq!(ask(&policy, "a:Do", "arn:x:secret"), Verdict::Deny);
    assert_eq!(ask(&policy, "a:See", "arn:x:hidden"), Verdict::Deny, "the order does not matter");
    assert_eq!(ask(&policy, "a:Other", "arn:x:open"), Verdict::Silent);
    let (allow, silent, deny) = (Verdict::Allow, Verdict::Silent, Verdict::Deny);
    assert_eq!((allow.and(deny), silent.and(allow), silent.and(silent)), (deny, allow, silent));
}

#[test]
fn wildcards_run_over_everything() {
    let allows = |pattern: &str, resource: &str| {
        let policy = statements(&json!({"Effect": "Allow", "Action": "execute-api:*", "Resource": pattern}));
        ask(&policy, "execute-api:Invoke", resource) == Verdict::Allow
    };
    assert!(allows("arn:aws:execute-api:*:*:chat/prod/*/pets/*", "arn:aws:execute-api:r:1:chat/prod/GET/pets/1"));
    assert!(!allows("arn:aws:execute-api:*:*:chat/prod/*/pets/*", "arn:aws:execute-api:r:1:chat/dev/GET/pets/1"));
    assert!(
        allows("arn:*", "arn:a/b:c")
            && allows("arn:?", "arn:é")
            && !allows("arn:?", "arn:ab")
            && !allows("arn:?", "arn:")
    );
    assert!(allows("arn:a*b*c", "arn:abxbc") && !allows("arn:a*b*c", "arn:abxb"));
    assert!(allows("arn:**", "arn:") && !allows("arn:a", "arn:a/"));
    // What would take ages if every star could be gone back to.
    let (pattern, text) = (format!("arn:{}b", "a*".repeat(60)), format!("arn:{}", "a".repeat(1_900)));
    assert!(!allows(&pattern, &text));
}

#[test]
fn not_action_and_not_resource_speak_of_everything_else() {
    let policy = statements(&json!([{"Effect": "Allow", "NotAction": "a:Do", "NotResource": ["arn:x:1", "arn:x:2"]}]));
    assert_eq!(ask(&policy, "a:See", "arn:x:3"), Verdict::Allow);
    assert_eq!(ask(&policy, "a:Do", "arn:x:3"), Verdict::Silent);
    assert_eq!(ask(&policy, "a:See", "arn:x:2"), Verdict::Silent);
}

fn holds(operator: &str, key: &str, values: &Value, facts: &[(&'static str, &[&'static str])]) -> bool {
    let policy = statements(&json!({
        "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {key: values}}}));
    let facts: BTreeMap<&str, Vec<&str>> = facts.iter().map(|(key, values)| (*key, values.to_vec())).collect();
    ask_with(&policy, "a:b", "arn:x", &[], &facts) == Verdict::Allow
}

#[test]
fn every_operator_compares_in_its_own_way() {
    let one =
        |operator: &str, wanted: Value, found: &'static str| holds(operator, "aws:K", &wanted, &[("aws:k", &[found])]);
    for (operator, wanted, fits, not) in [
        ("StringEquals", json!(["a", "b"]), "b", "A"),
        ("StringEquals", json!("a*"), "a*", "ab"),
        ("StringEqualsIgnoreCase", json!("Ab"), "aB", "b"),
        ("StringLike", json!("a*c?"), "abbcd", "abbc"),
        ("NumericEquals", json!(5), "5.0", "6"),
        ("NumericLessThan", json!("5"), "4.9", "5"),
        ("NumericLessThanEquals", json!(5), "5", "5.1"),
        ("NumericGreaterThan", json!(5), "6", "5"),
        ("NumericGreaterThanEquals", json!(5), "5", "x"),
        ("DateEquals", json!("2020-04-01T00:00:00Z"), "1585699200", "2020-04-01T00:00:01Z"),
        ("DateLessThan", json!("2020-04-01T00:00:00Z"), "2020-03-31T23:59:59Z", "2020-04-01T00:00:00Z"),
        ("DateGreaterThan", json!("2020-04-01T00:00:00Z"), "2020-04-02", "2020-04-01"),
        ("Bool", json!(true), "true", "false"),
        ("Bool", json!("false"), "False", "nope"),
        ("BinaryEquals", json!("aGk="), "aGk=", "aGo="),
        ("IpAddress", json!(["192.0.2.0/24", "2001:db8::/32"]), "2001:db8::1", "2001:db9::1"),
        ("IpAddress", json!("192.0.2.7"), "192.0.2.7", "192.0.2.8"),
        ("ArnLike", json!("arn:aws:iam::*:user/a*"), "arn:aws:iam::1:user/ab:c", "arn:aws:iam:x:y:1:user/ab"),
        ("ArnEquals", json!("arn:aws:iam::1:role/?"), "arn:aws:iam::1:role/x", "arn:aws:iam::1:role/xy"),
    ] {
        assert!(one(operator, wanted.clone(), fits), "{operator} {wanted} {fits}");
        assert!(!one(operator, wanted.clone(), not), "{operator} {wanted} {not}");
        let negated = match operator {
            "IpAddress" => "NotIpAddress".to_owned(),
            "StringEquals"
            | "StringEqualsIgnoreCase"
            | "StringLike"
            | "NumericEquals"
            | "DateEquals"
            | "ArnLike"
            | "ArnEquals" => ["String", "Numeric", "Date", "Arn"].iter().fold(operator.to_owned(), |name, kind| {
                match name.strip_prefix(kind) {
                    Some(rest) if !rest.starts_with("Not") => format!("{kind}Not{rest}"),
                    _ => name,
                }
            }),
            _ => continue,
        };
        assert!(!one(&negated, wanted.clone(), fits) && one(&negated, wanted.clone(), not), "{negated} {wanted}");
    }
}

#[test]
fn a_missing_key_fits_only_what_is_negated_or_optional() {
    let none: &[(&str, &[&str])] = &[];
    let some: &[(&str, &[&str])] = &[("aws:k", &["a", "b"])];
    for (operator, wanted, without, with) in [
        ("StringEquals", json!("a"), false, true),
        ("StringNotEquals", json!("a"), true, false),
        ("StringEqualsIfExists", json!("c"), true, false),
        ("NotIpAddress", json!("192.0.2.1"), true, true),
        ("Null", json!("true"), true, false),
        ("Null", json!(false), false, true),
        ("ForAnyValue:StringEquals", json!(["b", "c"]), false, true),
        ("ForAnyValue:StringNotEquals", json!("b"), false, true),
        ("ForAllValues:StringEquals", json!(["a", "b", "c"]), true, true),
        ("ForAllValues:StringEquals", json!(["a", "c"]), true, false),
        ("ForAllValues:StringNotEquals", json!("c"), true, true),
        ("ForAllValues:StringLikeIfExists", json!("?"), true, true),
    ] {
        assert_eq!(holds(operator, "aws:K", &wanted, none), without, "{operator} {wanted} without");
        assert_eq!(holds(operator, "AWS:k", &wanted, some), with, "{operator} {wanted} with");
    }
}

#[test]
fn all_conditions_must_hold() {
    let policy = statements(&json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
        "StringEquals": {"aws:a": "1", "aws:b": "2"}, "Bool": {"aws:c": true}}}));
    let facts = |c| BTreeMap::from([("aws:a", vec!["1"]), ("aws:b", vec!["2"]), ("aws:c", vec![c])]);
    assert_eq!(ask_with(&policy, "a:b", "arn:x", &[], &facts("true")), Verdict::Allow);
    assert_eq!(ask_with(&policy, "a:b", "arn:x", &[], &facts("false")), Verdict::Silent);
}

#[test]
fn variables_are_filled_in_and_never_read_as_wildcards() {
    let allows = |version: &str, pattern: &str, name: Option<&'static str>, resource: &str| {
        let policy = policy(&json!({"Version": version, "Statement": {
            "Effect": "Allow", "Action": "*", "Resource": pattern}}));
        let facts: BTreeMap<&str, Vec<&str>> = name.map(|name| ("aws:username", vec![name])).into_iter().collect();
        ask_with(&policy, "a:b", resource, &[], &facts) == Verdict::Allow
    };
    let new = "2012-10-17";
    assert!(allows(new, "arn:x:${aws:UserName}/*", Some("ann"), "arn:x:ann/1"));
    assert!(
        !allows(new, "arn:x:${aws:username}", Some("*"), "arn:x:ann")
            && allows(new, "arn:x:${aws:username}", Some("*"), "arn:x:*")
    );
    assert!(!allows(new, "arn:x:${aws:username}", None, "arn:x:"));
    assert!(allows(new, "arn:x:${aws:username, 'nobody'}", None, "arn:x:nobody"));
    assert!(allows(new, "arn:x:${*}${?}${$}", None, "arn:x:*?$") && !allows(new, "arn:x:${*}", None, "arn:x:a"));
    assert!(allows("2008-10-17", "arn:x:${aws:username}", Some("ann"), "arn:x:${aws:username}"));
}

#[test]
fn a_resource_policy_says_whom_it_is_about() {
    let policy = |principal: &Value| {
        Policy::parse(
            &json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": principal, "Action": "execute-api:Invoke", "Resource": "execute-api:/prod/*"}]}),
            Kind::Resource,
        )
        .unwrap()
    };
    let resource = format!("{OWN}/prod/$connect");
    let ask =
        |principal: &Value, names: &[&str]| ask_with(&policy(principal), "execute-api:Invoke", &resource, names, &());
    let (user, account) = ("arn:aws:iam::123456789012:user/ann", "arn:aws:iam::123456789012:root");
    for principal in [
        json!("*"),
        json!({"AWS": "*"}),
        json!({"AWS": [user]}),
        json!({"AWS": "123456789012"}),
        json!({"AWS": account}),
    ] {
        assert_eq!(ask(&principal, &[user, account]), Verdict::Allow, "{principal}");
    }
    assert_eq!(ask(&json!("*"), &[]), Verdict::Allow);
    assert_eq!(ask(&json!({"AWS": user}), &[]), Verdict::Silent);
    assert_eq!(ask(&json!({"AWS": "210987654321"}), &[user, account]), Verdict::Silent);
    let not = Policy::parse(
        &json!({"Statement": {"Effect": "Deny", "NotPrincipal": {"AWS": user}, "Action": "*", "Resource": "*"}}),
        Kind::Resource,
    )
    .unwrap();
    assert_eq!(ask_with(&not, "a:b", "arn:x", &[user], &()), Verdict::Silent);
    assert_eq!(ask_with(&not, "a:b", "arn:x", &[], &()), Verdict::Deny);
    let elsewhere = ask_with(&policy(&json!("*")), "execute-api:Invoke", &resource.replace("chat", "other"), &[], &());
    assert_eq!(elsewhere, Verdict::Silent, "the short form means the policy's own API");
}

#[test]
fn what_is_wrong_is_told_with_the_way_to_it() {
    let wrong = |document: Value, kind| Policy::parse(&document, kind).unwrap_err().to_string();
    let statement = |change: Value| {
        let mut statement = json!({"Effect": "Allow", "Action": "a:b", "Resource": "*"});
        for (key, value) in change.as_object().unwrap() {
            statement[key] = value.clone();
        }
        wrong(json!({"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}, statement]}), Kind::Identity)
    };
    assert_eq!(wrong(json!([]), Kind::Identity), "the policy is no object");
    assert_eq!(wrong(json!({}), Kind::Identity), "the policy has no `Statement`");
    assert_eq!(
        wrong(json!({"Version": "2013", "Statement": []}), Kind::Identity),
        "the policy.Version is no version, expected `2012-10-17`"
    );
    assert_eq!(
        wrong(json!({"Statment": []}), Kind::Identity),
        "the policy.Statment is unknown, expected one of `Version`, `Id`, `Statement`"
    );
    assert_eq!(statement(json!({"Effect": "allow"})), "the policy.Statement[1].Effect is neither `Allow` nor `Deny`");
    assert_eq!(
        statement(json!({"Action": ["a:b", "Invoke"]})),
        "the policy.Statement[1].Action has `Invoke`, expected actions such as `execute-api:Invoke`"
    );
    assert_eq!(
        statement(json!({"NotAction": "a:b"})),
        "the policy.Statement[1] has both `Action` and `NotAction`, expected one"
    );
    assert_eq!(
        statement(json!({"Resource": "chat"})),
        "the policy.Statement[1].Resource has `chat`, expected names such as `arn:aws:execute-api:…`"
    );
    assert_eq!(statement(json!({"Resource": []})), "the policy.Statement[1].Resource is empty");
    assert_eq!(
        statement(json!({"Principal": "*"})),
        "the policy.Statement[1].Principal has no meaning here: the policy is about its owner"
    );
    assert_eq!(
        statement(json!({"Condition": {"StringMatches": {}}})),
        "the policy.Statement[1].Condition.StringMatches is no operator that is known here"
    );
    assert_eq!(
        statement(json!({"Condition": {"IpAddress": {"aws:SourceIp": ["192.0.2.1", "10.0.0.0/33"]}}})),
        "the policy.Statement[1].Condition.IpAddress.aws:SourceIp has `10.0.0.0/33`, which is no network such as `192.0.2.0/24` and no address"
    );
    assert!(statement(json!({"Condition": {"DateLessThan": {"aws:CurrentTime": "soon"}}})).contains("is no time"));
    assert!(statement(json!({"Condition": {"NullIfExists": {"aws:k": "true"}}})).contains("no operator"));
    assert!(
        statement(json!({"Condition": {"Bool": {"key": "true"}}}))
            .ends_with("is no condition key such as `aws:SourceIp`")
    );
    let nobody = wrong(json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}), Kind::Resource);
    assert_eq!(nobody, "the policy.Statement has neither `Principal` nor `NotPrincipal`");
    let many = json!({"Statement": vec![json!({}); 501]});
    assert_eq!(wrong(many, Kind::Identity), "the policy.Statement has more than 500 statements");
}

/// Prints what one evaluation costs. Run by `cargo test --release -- --ignored --nocapture evaluation_of_twenty`.
#[test]
#[ignore = "a measurement, meaningful in a release build alone"]
fn evaluation_of_twenty_statements_is_quick() {
    let statement = |n: usize| {
        let resource = format!("arn:aws:execute-api:us-east-1:123456789012:api{n}/prod/*/@connections/*");
        json!({"Effect": if n.is_multiple_of(5) { "Deny" } else { "Allow" }, "Action": ["execute-api:Invoke", "execute-api:ManageConnections"], "Resource": resource})
    };
    let policy = statements(&(0..20).map(statement).collect::<Vec<_>>().into());
    let resource = "arn:aws:execute-api:us-east-1:123456789012:api19/prod/POST/@connections/{connectionId}";
    let rounds = 1_000_000;
    let started = tokio::time::Instant::now();
    for _ in 0..rounds {
        assert_eq!(ask(&policy, std::hint::black_box("execute-api:ManageConnections"), resource), Verdict::Allow);
    }
    let each = started.elapsed().as_secs_f64() / f64::from(rounds) * 1e6;
    println!("{each:.3} µs for 20 statements");
    assert!(each < 2.0, "{each:.3} µs");
}

/// Slow and plain: what the fast matcher must agree with.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        Some(('?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && matches(rest, &text[1..]),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![
            "Allow",
            "Deny",
            "*",
            "a:b",
            "arn:x",
            "${",
            "${aws:k}",
            "2012-10-17",
            "10.0.0.0/8",
            ""
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = prop::sample::select(vec![
            "Version",
            "Statement",
            "Effect",
            "Action",
            "NotAction",
            "Resource",
            "Principal",
            "AWS",
            "Condition",
            "StringLike",
            "IpAddress",
            "Null",
            "ForAllValues:DateEquals",
            "aws:k",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.prop_map(str::to_owned), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_pattern_fits_as_its_definition_says(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
        let document = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": format!("arn:{pattern}")}});
        let expected: (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        let verdict = ask(&policy(&document), "a:b", &format!("arn:{text}"));
        prop_assert_eq!(verdict == Verdict::Allow, matches(&expected.0, &expected.1));
    }

    /// Statements in any order say the same, and one more Deny never allows anything.
    #[test]
    fn the_order_of_statements_does_not_matter(
        list in prop::collection::vec((any::<bool>(), "a:[ab*]", "arn:[ab*]"), 0..6).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        action in "a:[ab]", resource in "arn:[ab]",
    ) {
        let build = |list: &[(bool, String, String)]| {
            let one = |(deny, action, resource): &(bool, String, String)| {
                json!({"Effect": if *deny { "Deny" } else { "Allow" }, "Action": action, "Resource": resource})
            };
            statements(&list.iter().map(one).collect::<Vec<_>>().into())
        };
        let verdict = ask(&build(&list.0), &action, &resource);
        prop_assert_eq!(verdict, ask(&build(&list.1), &action, &resource));
        let mut more = list.0.clone();
        more.push((true, "*".into(), "*".into()));
        prop_assert_eq!(ask(&build(&more), &action, &resource), Verdict::Deny);
    }

    #[test]
    fn no_json_makes_it_panic(document in any_json()) {
        for kind in [Kind::Identity, Kind::Resource] {
            if let Ok(policy) = Policy::parse(&document, kind) {
                let _any = ask(&policy, "a:b", "arn:x");
            }
        }
    }
}

//! `attributes` and `resource`: what actions do, to which spans, and what is wrong with a configuration.

use super::bench::{Bench, Build, V, attribute, batch, batch_with, findings, shown, span};
use pipeline::proto::trace::v1::Span;

fn subject() -> Span {
    span("GET")
        .with("user", "ann@example.org")
        .with("status", 404)
        .with("ratio", 1.75)
        .with("ok", true)
        .with("text", "12")
}

const UNTOUCHED: &str = "GET user=ann@example.org status=404 ratio=1.75 ok=true text=\"12\"";

/// Action, the part of `UNTOUCHED` that it changes, and what it becomes. Without a part: what
/// comes at the end.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("{key: user, action: insert, value: bob}", "", ""),
    ("{key: new, action: insert, value: 5}", "", "new=5"),
    ("{key: new, action: insert, value: \"5\"}", "", "new=\"5\""),
    ("{key: new, action: insert, value: 1.5}", "", "new=1.5"),
    ("{key: new, action: insert, value: true}", "", "new=true"),
    ("{key: new, action: update, value: 5}", "", ""),
    ("{key: status, action: update, value: ok}", "404", "ok"),
    ("{key: new, action: upsert, value: 5}", "", "new=5"),
    ("{key: status, action: upsert, value: 5}", "404", "5"),
    (
        "{key: new, action: upsert, from_attribute: ratio}",
        "",
        "new=1.75",
    ),
    (
        "{key: new, action: upsert, from_attribute: missing}",
        "",
        "",
    ),
    (
        "{key: new, action: upsert, from_attribute: missing, default_value: x}",
        "",
        "new=x",
    ),
    ("{key: status, action: delete}", " status=404", ""),
    (
        "{pattern: '^(ok|text)$', action: delete}",
        " ok=true text=\"12\"",
        "",
    ),
    (
        "{key: text, pattern: ^ok, action: delete}",
        " ok=true text=\"12\"",
        "",
    ),
    (
        "{key: text, action: hash}",
        "\"12\"",
        "6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918",
    ),
    (
        "{key: ok, action: hash}",
        "true",
        "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
    ),
    (
        "{key: status, action: hash}",
        "404",
        "6dcd500bcb8fc18e5ee01ae209fe19db2675ec3e422cd3783a072cd771d1867b",
    ),
    (
        "{key: user, action: extract, pattern: '^(?P<name>[^@]+)@(?P<domain>.*)$'}",
        "",
        "name=ann domain=example.org",
    ),
    (
        "{key: status, action: extract, pattern: '(?P<digit>.)'}",
        "",
        "",
    ),
    ("{key: user, action: extract, pattern: '(?P<no>q)'}", "", ""),
    (
        "{key: text, action: convert, converted_type: int}",
        "\"12\"",
        "12",
    ),
    (
        "{key: text, action: convert, converted_type: double}",
        "\"12\"",
        "12.0",
    ),
    (
        "{key: status, action: convert, converted_type: string}",
        "404",
        "\"404\"",
    ),
    (
        "{key: status, action: convert, converted_type: double}",
        "404",
        "404.0",
    ),
    (
        "{key: ratio, action: convert, converted_type: int}",
        "1.75",
        "1",
    ),
    (
        "{key: ok, action: convert, converted_type: int}",
        "true",
        "1",
    ),
    ("{key: user, action: convert, converted_type: int}", "", ""),
    (
        "{key: a, action: insert, value: 1}\n- {key: a, action: update, value: 2}",
        "",
        "a=2",
    ),
];

#[test]
fn actions_change_attributes() {
    for (action, part, replacement) in ACTIONS {
        let mut bench = Bench::new("attributes", &format!("actions:\n- {action}"));
        let lines = bench.lines(batch(vec![subject()]));
        let expected = if part.is_empty() {
            format!("{UNTOUCHED} {replacement}")
        } else {
            UNTOUCHED.replace(part, replacement)
        };
        assert_eq!(lines, [expected.trim_end()], "{action}");
    }
}

#[test]
fn only_spans_that_are_included_and_not_excluded_are_changed() {
    let spans = || {
        vec![
            span("GET /a").with("env", "prod").with("code", 200),
            Span {
                kind: 3,
                ..span("GET /b").with("env", "test")
            },
        ]
    };
    let cases = [
        ("include: {match_type: strict, span_names: [GET /a]}", "a"),
        ("include: {match_type: regexp, span_names: [^GET]}", "ab"),
        ("include: {match_type: strict, span_names: [GET]}", ""),
        (
            "exclude: {match_type: strict, span_kinds: [SPAN_KIND_CLIENT]}",
            "a",
        ),
        ("include: {match_type: strict, services: [shop]}", "ab"),
        ("include: {match_type: strict, services: [other, cart]}", ""),
        (
            "include: {match_type: regexp, services: [other, '^sh']}",
            "ab",
        ),
        (
            "include: {match_type: strict, attributes: [{key: code}]}",
            "a",
        ),
        (
            "include: {match_type: strict, attributes: [{key: code, value: 200}]}",
            "a",
        ),
        (
            "include: {match_type: strict, attributes: [{key: code, value: '200'}]}",
            "",
        ),
        (
            "include: {match_type: regexp, attributes: [{key: code, value: '2..'}]}",
            "a",
        ),
        (
            "include: {match_type: strict, attributes: [{key: env, value: test}, {key: code}]}",
            "",
        ),
        (
            "include: {match_type: strict, resources: [{key: service.name, value: shop}]}",
            "ab",
        ),
        (
            "include: {match_type: strict, libraries: [{name: deeptrace, version: '1.2'}]}",
            "ab",
        ),
        (
            "include: {match_type: strict, libraries: [{name: deeptrace, version: '1.3'}]}",
            "",
        ),
        (
            "include: {match_type: regexp, span_names: [GET]}\nexclude: {match_type: strict, attributes: [{key: env, value: prod}]}",
            "b",
        ),
    ];
    for (choice, changed) in cases {
        let settings = format!("actions: [{{key: seen, action: insert, value: 1}}]\n{choice}");
        let lines = Bench::new("attributes", &settings).lines(batch(spans()));
        let seen = lines.iter().filter(|line| line.ends_with("seen=1"));
        let names: String = seen.map(|line| line.chars().nth(5).unwrap()).collect();
        assert_eq!(names, changed, "{choice}");
    }
}

#[test]
fn resource_changes_the_resource_and_no_span() {
    let settings = "attributes:\n- {key: deployment.environment.name, action: upsert, value: prod}\n\
        - {key: host.id, action: delete}\n- {key: service.namespace, from_attribute: team, action: insert}";
    let mut bench = Bench::new("resource", settings);
    let resource = vec![
        attribute("service.name", "shop"),
        attribute("host.id", "7"),
        attribute("team", "blue"),
    ];
    let out = bench.process(batch_with(resource, vec![span("GET").with("host.id", "8")]));
    let resources = out[0].resource_spans();
    let attributes = &resources[0].resource.as_ref().unwrap().attributes;
    let shown: Vec<String> = attributes.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            "service.name=shop",
            "team=blue",
            "deployment.environment.name=prod",
            "service.namespace=blue"
        ]
    );
    assert_eq!(super::bench::lines(&out[0]), ["GET host.id=\"8\""]);
}

const UNSOUND: &[(&str, &str)] = &[
    ("", "actions: at least one action is needed"),
    (
        "actions: [{key: a}]",
        "actions::0::action: must be set: insert, update, upsert, delete, hash, extract or convert",
    ),
    (
        "actions: [{key: a, action: drop}]",
        "actions::0::action: \"drop\" is not one of insert, update, upsert, delete, hash, extract, convert",
    ),
    (
        "actions: [{action: insert, value: 1}]",
        "actions::0::key: must be set",
    ),
    (
        "actions: [{key: a, action: insert}]",
        "actions::0::value: this or from_attribute must be set",
    ),
    (
        "actions: [{key: a, action: insert, value: 1, from_attribute: b}]",
        "actions::0::value: set this or from_attribute, not both",
    ),
    (
        "actions: [{key: a, action: insert, from_context: client.address}]",
        "actions::0::from_context: not supported: what a client sent beside its spans is not kept",
    ),
    (
        "actions: [{key: a, action: delete, value: 1}]",
        "actions::0::value: has no meaning for this action",
    ),
    (
        "actions: [{key: a, action: convert}]",
        "actions::0::converted_type: must be set: int, double or string",
    ),
    (
        "actions: [{key: a, action: extract}]",
        "actions::0::pattern: must be set",
    ),
    (
        "actions: [{key: a, action: extract, pattern: '(.)'}]",
        "actions::0::pattern: every group needs a name, as in (?P<name>...), and there must be one",
    ),
    (
        "actions: [{key: a, action: hash, pattern: '('}]",
        "actions::0::pattern: \"(\" is no regular expression: unclosed group",
    ),
    (
        "include: {span_names: [a]}",
        "include::match_type: must be set: strict or regexp",
    ),
    (
        "include: {match_type: strict}",
        "include: one of services, span_names, span_kinds, attributes, resources, libraries is needed",
    ),
    (
        "exclude: {match_type: regexp, span_names: [a, '[']}",
        "exclude::span_names::1: \"[\" is no regular expression: unclosed character class",
    ),
    (
        "exclude: {match_type: strict, span_kinds: [SERVER]}",
        "exclude::span_kinds::0: \"SERVER\" matches no span kind: SPAN_KIND_UNSPECIFIED, SPAN_KIND_INTERNAL, SPAN_KIND_SERVER, SPAN_KIND_CLIENT, SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER",
    ),
    (
        "include: {match_type: regexp, attributes: [{key: a, value: 1}]}",
        "include::attributes::0: value must be a regular expression in quotes",
    ),
];

#[test]
fn settings_that_cannot_work_say_where_and_why() {
    for (settings, finding) in UNSOUND {
        let found = findings("attributes", settings);
        let found_it = found.iter().any(|found| found == finding);
        assert!(found_it, "{settings}: {found:?}");
    }
    let found = findings("resource", "attributes: [{key: a, action: insert}]");
    assert_eq!(
        found,
        ["attributes::0::value: this or from_attribute must be set"]
    );
}

#[test]
fn lists_and_maps_are_values_too() {
    let settings = "actions: [{key: tags, action: insert, value: [a, b]}]";
    let out = Bench::new("attributes", settings).process(batch(vec![span("GET")]));
    let expected = attribute("tags", V::from(["a", "b"].as_slice()));
    assert_eq!(super::bench::spans(&out[0])[0].attributes, [expected]);
}

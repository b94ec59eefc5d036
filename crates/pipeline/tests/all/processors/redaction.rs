//! `redaction`: what is removed and masked, and what is told of it.

use super::bench::{
    Bench, Build, attribute, batch, batch_with, findings, lines, shown, span, spans,
};
use pipeline::proto::trace::v1::Span;
use pipeline::proto::trace::v1::span::{Event, Link};

/// Settings, and what is left of `GET card=no 4111111111111111 ok token=test count=12`.
const REDACTIONS: &[(&str, &str)] = &[
    ("{}", "GET"),
    (
        "{allow_all_keys: true}",
        "GET card=no 4111111111111111 ok token=test count=12",
    ),
    ("{allowed_keys: [count]}", "GET count=12"),
    ("{ignored_keys: [token]}", "GET token=test"),
    ("{ignored_key_patterns: [^t.ken$]}", "GET token=test"),
    (
        "{allow_all_keys: true, blocked_values: ['4\\d{15}']}",
        "GET card=no **** ok token=test count=12",
    ),
    (
        "{allow_all_keys: true, blocked_values: ['4\\d{15}', '^t']}",
        "GET card=no **** ok token=****est count=12",
    ),
    (
        "{allow_all_keys: true, blocked_values: ['.*'], allowed_values: [^no, es]}",
        "GET card=no 4111111111111111 ok token=test count=12",
    ),
    (
        "{allow_all_keys: true, blocked_values: ['1']}",
        "GET card=no 4************************************************************ ok token=test count=12",
    ),
    (
        "{allow_all_keys: true, redact_all_types: true, blocked_values: [^1]}",
        "GET card=no 4111111111111111 ok token=test count=****2",
    ),
    (
        "{allow_all_keys: true, blocked_key_patterns: [tok, count]}",
        "GET card=no 4111111111111111 ok token=**** count=****",
    ),
    (
        "{allowed_keys: [token], blocked_key_patterns: [tok], hash_function: md5}",
        "GET token=098f6bcd4621d373cade4e832627b4f6",
    ),
    (
        "{allowed_keys: [token], blocked_key_patterns: [tok], hash_function: sha1}",
        "GET token=a94a8fe5ccb19ba61c4c0873d391e987982fbbd3",
    ),
    (
        "{allowed_keys: [token], blocked_values: [test], hash_function: sha3}",
        "GET token=36f028580bb02cc8272a9a020f4200e346e276ae664e45ee80745574e2f5ab80",
    ),
    (
        "{allowed_keys: [token], blocked_values: [es], summary: debug}",
        "GET token=t****t redaction.redacted.keys=card,count redaction.redacted.count=2 \
             redaction.masked.keys=token redaction.masked.count=1",
    ),
    (
        "{allowed_keys: [token], ignored_keys: [count], allowed_values: [te], summary: info}",
        "GET token=test count=12 redaction.redacted.count=1 redaction.allowed.count=1 \
             redaction.ignored.count=1",
    ),
];

#[test]
fn attributes_that_are_not_allowed_are_removed_and_values_masked() {
    for (settings, expected) in REDACTIONS {
        let span = span("GET")
            .with("card", "no 4111111111111111 ok")
            .with("token", "test")
            .with("count", 12);
        let out = Bench::new("redaction", settings).lines(batch(vec![span]));
        assert_eq!(out, [*expected], "{settings}");
    }
}

#[test]
fn resources_scopes_events_and_links_are_redacted_too() {
    let secret = || vec![attribute("secret", "x"), attribute("open", "y")];
    let span = Span {
        events: vec![Event {
            attributes: secret(),
            ..Event::default()
        }],
        links: vec![Link {
            attributes: secret(),
            ..Link::default()
        }],
        attributes: secret(),
        ..span("GET")
    };
    let mut bench = Bench::new("redaction", "{allowed_keys: [open]}");
    let out = bench.process(batch_with(secret(), vec![span]));
    let resources = out[0].resource_spans();
    let span = &spans(&out[0])[0];
    let resource = resources[0].resource.as_ref().unwrap();
    for attributes in [
        &resource.attributes,
        &span.attributes,
        &span.events[0].attributes,
        &span.links[0].attributes,
    ] {
        assert_eq!(attributes.iter().map(shown).collect::<Vec<_>>(), ["open=y"]);
    }
    assert_eq!(
        bench.counts("deeptrace_redacted_attributes"),
        ["action=removed 4"]
    );
}

#[test]
fn a_second_redaction_adds_to_the_summary_of_the_first() {
    let span = span("GET").with("a", "1 x").with("b", "2").with("c", "x");
    let first = "{allowed_keys: [a, c], blocked_values: [x], summary: debug}";
    let second = "{allowed_keys: [c], blocked_values: ['\\*'], summary: debug}";
    let out = Bench::new("redaction", first).process(batch(vec![span]));
    let out = Bench::new("redaction", second).process(out.into_iter().next().unwrap());
    assert_eq!(
        lines(&out[0]),
        [
            "GET c=**************** redaction.redacted.keys=a,b redaction.redacted.count=2 \
          redaction.masked.keys=a,c,c redaction.masked.count=3"
        ]
    );
}

#[test]
fn settings_that_cannot_work_say_where_and_why() {
    let cases = [
        (
            "{url_sanitizer: {enabled: true}}",
            "url_sanitizer: not supported: mask what must not be seen with blocked_values",
        ),
        (
            "{db_sanitizer: {sql: {enabled: true}}}",
            "db_sanitizer: not supported: mask what must not be seen with blocked_values",
        ),
        (
            "{blocked_values: ['a**', '[a']}",
            "blocked_values::1: \"[a\" is no regular expression: unclosed character class",
        ),
        (
            "{hash_function: sha512}",
            "hash_function: \"sha512\" is not one of md5, sha1, sha3, did you mean \"sha1\"?",
        ),
        (
            "{summary: loud}",
            "summary: \"loud\" is not one of debug, info, silent",
        ),
        (
            "{allow_all_keys: true, allowed_keys: [a]}",
            "allowed_keys: has no effect, allow_all_keys is true",
        ),
    ];
    for (settings, finding) in cases {
        let found = findings("redaction", settings);
        assert!(
            found.iter().any(|found| found == finding),
            "{settings}: {found:?}"
        );
    }
}

//! A configuration printed as it is used.

use crate::support::FACTORIES;
use pipeline::Config;
use pipeline::config::{Tree, json, node, report::Report};

const YAML: &str = "\
receivers: {feed: {spans: 0x10}}
exporters:
  otlp_http:
    endpoint: http://user:hunter2@host:4318
    headers: {authorization: \"${TOKEN}\", x-a: 'it''s', x-b: ': {', x-c: '12'}
  file: {path: \"a\\tb # c\", append: true}
  debug:
service: {pipelines: {traces: {receivers: [feed], exporters: [debug, file]}}}
";

fn tree() -> Tree {
    let env = |name: &str| (name == "TOKEN").then(|| "Bearer hunter2".to_owned());
    Config::parse(&[("x.yaml", YAML)], &FACTORIES, &env)
        .unwrap()
        .tree
}

#[test]
fn what_is_printed_reads_as_what_was_read() {
    let tree = tree();
    for text in [tree.yaml(), tree.json()] {
        let read = node::parse("printed", &text, &mut Report::default()).unwrap();
        assert_eq!(json(&read), json(tree.node()), "{text}");
        Config::parse(&[("printed", &text)], &FACTORIES, &|_| None).unwrap();
    }
}

#[test]
fn secrets_are_printed_only_when_asked_for() {
    let tree = tree();
    assert!(tree.yaml().contains("Bearer hunter2"), "{}", tree.yaml());
    assert!(!format!("{tree:?}").contains("hunter2"));
    let tree = tree.redacted();
    for text in [tree.yaml(), tree.json()] {
        assert!(
            !text.contains("hunter2") && !text.contains("it's"),
            "{text}"
        );
        assert!(text.contains("http://user:[REDACTED]@host:4318"), "{text}");
    }
}

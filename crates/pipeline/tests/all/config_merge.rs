//! Configurations of more than one file.

use crate::support::FACTORIES;
use pipeline::{Config, ConfigError};

const BASE: &str = "\
receivers: {feed: {batches: 2, spans: 3}}
exporters:
  debug:
    verbosity: normal
    trace_idle: 2s
service:
  pipelines:
    traces:
      receivers: [feed]
      exporters: [debug]
";

fn merge(files: &[&str]) -> Result<Config, ConfigError> {
    let names = ["base.yaml", "above.yaml", "top.yaml"];
    let files: Vec<(&str, &str)> = names.into_iter().zip(files.iter().copied()).collect();
    Config::parse(&files, &FACTORIES, &|_| None)
}

#[track_caller]
fn is_refused(files: &[&str], expected: &str) {
    assert_eq!(merge(files).unwrap_err().to_string(), expected);
}

#[test]
fn mappings_join_and_lists_are_replaced() {
    let above = "exporters:\n  debug: {trace_idle: 5s}\n  debug/2:\n\
        service: {pipelines: {traces: {exporters: [debug/2]}}}";
    let top = "receivers: {feed: {spans: 7}}";
    let config = merge(&[BASE, above, top]).unwrap();
    let exporters: Vec<&str> = config.pipelines[0]
        .exporters
        .iter()
        .map(pipeline::config::ComponentId::as_str)
        .collect();
    assert_eq!(exporters, ["debug/2"]);
    assert_eq!(config.pipelines[0].to_string(), "traces: feed -> debug/2");
    let settings = format!("{:?} {:?}", config.receivers, config.exporters);
    for expected in ["batches: 2", "spans: 7", "Normal", "trace_idle: 5s"] {
        assert!(settings.contains(expected), "{expected}: {settings}");
    }
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn what_is_wrong_is_named_where_it_stands() {
    is_refused(
        &[BASE, "exporters:\n  debug:\n    verbosty: basic"],
        "above.yaml:3: exporters::debug::verbosty: unknown key",
    );
    is_refused(
        &[BASE, "exporters:\n  - debug"],
        "above.yaml:1: exporters: expected a mapping, got a list\n\
         base.yaml:10: service::pipelines::traces::exporters: \
         references exporter \"debug\" which is not configured",
    );
    is_refused(
        &[
            &BASE.replace("batches: 2", "batches: two"),
            "exporters: {debug: {trace_idle: 2}}",
        ],
        "above.yaml:1: exporters::debug::trace_idle: \
         expected a duration such as 200ms or 1m30s, got \"2\"\n\
         base.yaml:1: receivers::feed::batches: expected a whole number, 0 or more, got \"two\"",
    );
    // Nothing wipes out what was there.
    is_refused(
        &[BASE, "\nservice:\n  pipelines:"],
        "above.yaml:3: service::pipelines: at least one pipeline is needed",
    );
}

#[test]
fn nothing_wipes_what_was_there_and_an_empty_mapping_does_not() {
    let unchanged = merge(&[
        BASE,
        "exporters: {debug: {}}\nservice: {}\nreceivers: {feed: {}}",
    ]);
    let settings = format!("{:?}", unchanged.unwrap().exporters);
    assert!(settings.contains("verbosity: Normal"), "{settings}");
    let wiped = merge(&[BASE, "exporters: {debug: }"]).unwrap();
    let settings = format!("{:?}", wiped.exporters);
    assert!(settings.contains("verbosity: Basic"), "{settings}");
}

#[test]
fn a_file_that_is_no_yaml_is_all_that_is_said() {
    is_refused(
        &["exporters: {debug: {}}", "a: [", "service: {}"],
        "above.yaml:2: not valid YAML: while parsing a node, did not find expected node content",
    );
}

#[test]
fn an_empty_file_changes_nothing_and_is_warned_about() {
    for files in [[BASE, "# nothing"], ["", BASE]] {
        let config = merge(&files).unwrap();
        let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        let empty = if files[0].is_empty() { "base" } else { "above" };
        assert_eq!(warnings, [format!("{empty}.yaml: the file is empty")]);
    }
    is_refused(
        &["", ""],
        "base.yaml: the configuration is empty\nwarning: above.yaml: the file is empty",
    );
}

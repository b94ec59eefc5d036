//! Every kind of bad configuration, with all that is said about it.
//!
//! `tests/all/bad_configs/NAME.yaml` is the input and `NAME.txt` the expected message;
//! `UPDATE_EXPECTED=1 cargo test` writes the latter anew.

use crate::support::{FACTORIES, config};
use pipeline::{Config, Sources};
use std::path::Path;

#[test]
fn every_error_names_its_place_and_what_would_be_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/bad_configs");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let error = Config::parse(&[(name, &text)], &FACTORIES, &|_| None).unwrap_err();
            let expected_path = path.with_extension("txt");
            if std::env::var_os("UPDATE_EXPECTED").is_some() {
                std::fs::write(&expected_path, format!("{error}\n")).unwrap();
            }
            let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
            assert_eq!(format!("{error}\n"), expected, "{name}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn every_file_that_cannot_be_read_is_named() {
    let error = Config::load(
        &Sources::of(["/no/such.yaml", "/", "/no/other.yaml"]),
        &FACTORIES,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "/: Is a directory (os error 21)\n\
         /no/other.yaml: No such file or directory (os error 2)\n\
         /no/such.yaml: No such file or directory (os error 2)"
    );
    let many = vec!["/dev/null"; 101];
    let error = Config::load(&Sources::of(many), &FACTORIES).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/null: more than 100 files\nwarning: /dev/null: the file is empty"
    );
    let error = Config::load(&Sources::default(), &FACTORIES).unwrap_err();
    assert_eq!(error.to_string(), "configuration: no file is given");
}

const GOOD: &str = "
receivers: {feed: {batches: 2}}
processors: {hold: , hold/short: {hold: 1ms}}
x: &retry {max_elapsed_time: 0}
exporters:
  otlp: {endpoint: \"${env:HOST}:${env:PORT}\", tls: {insecure: true}, timeout: 1m30s}
  otlphttp/b:
    endpoint: http://${env:HOST}:4318
    headers: {authorization: \"${env:TOKEN}\"}
    retry_on_failure: {<<: *retry, initial_interval: 100ms}
    sending_queue: {queue_size: \"${env:SIZE:-77}\"}
  debug:
service:
  pipelines:
    traces: {receivers: [feed], processors: [hold, hold/short], exporters: [otlp, otlphttp/b, debug]}
";

fn env(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("jaeger".to_owned()),
        "PORT" => Some("4317".to_owned()),
        // A number by its looks, and a text by its field.
        "TOKEN" => Some("0123".to_owned()),
        _ => None,
    }
}

#[test]
fn references_anchors_and_old_names_work() {
    let text = GOOD.replace("x: &retry", "extensions: &retry");
    let error = Config::parse(&[("good.yaml", &text)], &FACTORIES, &env).unwrap_err();
    assert!(error.to_string().contains("unknown type"), "{error}");

    let text = GOOD
        .replace("x: &retry {max_elapsed_time: 0}\n", "")
        .replace("<<: *retry", "max_elapsed_time: 0");
    let config = Config::parse(&[("good.yaml", &text)], &FACTORIES, &env).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "good.yaml:5: exporters::otlp: \"otlp\" is the former name of \"otlp_grpc\"",
            "good.yaml:6: exporters::otlphttp/b: \"otlphttp\" is the former name of \"otlp_http\"",
        ]
    );
    let exporters: Vec<String> = config
        .exporters
        .values()
        .map(|settings| format!("{settings:?}"))
        .collect();
    let has = |text: &str| exporters.iter().any(|settings| settings.contains(text));
    assert!(
        has("endpoint: \"jaeger:4317\"") && has("timeout: 90s"),
        "{exporters:?}"
    );
    assert!(
        has("max_elapsed_time: 0ns") && has("queue_size: 77"),
        "{exporters:?}"
    );
    assert!(has("[REDACTED]") && !has("0123"), "{exporters:?}");
    let order: Vec<&str> = config.pipelines[0]
        .processors
        .iter()
        .map(pipeline::config::ComponentId::as_str)
        .collect();
    assert_eq!(order, ["hold", "hold/short"]);
}

#[test]
fn a_variable_that_is_not_set_is_a_warning_and_reads_as_nothing() {
    let text = "receivers: {feed: {batches: 1}}\nexporters: {debug: {verbosity: basic, trace_idle: 1s}}\n\
        service: {telemetry: {logs: {level: \"${env:LEVEL:-debug}\"}}, pipelines: \
        {traces: {receivers: [\"${env:WHICH:-feed}\"], processors: \"${env:NONE}\", exporters: [debug]}}}";
    let config = Config::parse(&[("x.yaml", text)], &FACTORIES, &|_| None).unwrap();
    assert_eq!(config.telemetry.logs.level, "debug");
    let expected = "x.yaml:3: service::pipelines::traces::processors: \
        environment variable NONE is not set and has no default, read as empty";
    assert_eq!(config.warnings[0].to_string(), expected);
}

#[test]
fn anchors_and_merge_keys_work() {
    let yaml = "receivers: {feed: }\nexporters:\n  debug: &base {verbosity: normal, trace_idle: 2s}\n  \
        debug/2: {<<: *base, trace_idle: 5s}\nservice: {pipelines: {traces: {receivers: [feed], exporters: [debug/2]}}}";
    let config = config(yaml);
    let debug = format!("{:?}", config.exporters.values().nth(1).unwrap());
    assert!(
        debug.contains("verbosity: Normal") && debug.contains("trace_idle: 5s"),
        "{debug}"
    );
}

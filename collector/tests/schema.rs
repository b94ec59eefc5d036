//! The JSON schema that editors use: current, and no other judge than reading is.
#![cfg(test)]

use collector::app::PROGRAM;
use jsonschema::Validator;
use pipeline::Config;
use pipeline::config::report::Report;
use pipeline::config::{json, node};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator() -> Validator {
    jsonschema::draft7::new(&PROGRAM.schema()).unwrap()
}

/// What the schema has against a text.
fn against(validator: &Validator, yaml: &str) -> Vec<String> {
    let mut report = Report::default();
    let node = node::parse("test.yaml", yaml, &mut report).unwrap();
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let value = json(&node);
    let errors = validator.iter_errors(&value);
    let errors = errors.map(|error| format!("{}: {error}", error.instance_path()));
    errors.collect()
}

#[test]
fn the_committed_schema_is_the_one_that_the_settings_give() {
    let path = root().join("config/schema.json");
    let schema = format!("{:#}\n", PROGRAM.schema());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "config/schema.json is old: UPDATE_EXPECTED=1 cargo test -p collector --test schema"
    );
    jsonschema::meta::validate(&PROGRAM.schema()).unwrap();
}

#[test]
fn every_configuration_that_is_handed_out_pleases_the_schema() {
    let validator = validator();
    let mut texts = Vec::new();
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
    let page = fs::read_to_string(root().join("docs/usage.md")).unwrap();
    for block in page.split("```yaml\n").skip(1) {
        texts.push(block.split_once("```").unwrap().0.to_owned());
    }
    assert!(texts.len() > 4, "{}", texts.len());
    for text in texts {
        assert_eq!(against(&validator, &text), [""; 0], "{text}");
    }
}

#[test]
fn what_reading_takes_the_schema_takes() {
    let validator = validator();
    for text in [
        "",
        "receivers:\n",
        "receivers: {ebpf: , ebpf/2: {select: ['${env:RULE}'], unix_sockets: '${env:UNIX}'}}",
        "receivers: {ebpf: {select: [{action: include, listen_port: [80, '81,90-99']}]}}",
        "receivers: {ebpf: {select: {default: include, rules: [{action: exclude, pid: 1}]}}}",
        "exporters: ${file:exporters.yaml}",
        "exporters: {otlp: {endpoint: 'a:1', timeout: 1m30s, headers: {a: '${env:B}'}}}",
        "exporters: {otlp_grpc: {timeout: 0, compression: '${env:C}', sending_queue: {batch: null}}}",
        "exporters: {otlphttp/b: {sending_queue: {queue_size: '${env:SIZE}'}}}",
        "service: {extensions: [], pipelines: {traces/2: {receivers: [ebpf], exporters: '${E}'}}}",
    ] {
        assert_eq!(against(&validator, text), [""; 0], "{text}");
    }
}

#[test]
fn what_reading_refuses_the_schema_refuses() {
    let validator = validator();
    for text in [
        "recievers: {}",
        "receivers: [ebpf]",
        "receivers: {epbf: {}}",
        "receivers: {ebpf: {selects: []}}",
        "receivers: {ebpf: {select: [{action: includes}]}}",
        "receivers: {ebpf: {select: [{action: include, port: 80}]}}",
        "receivers: {ebpf: {ring_buffer_mib: much}}",
        "processors: {span_linker: {decision_wait: 5}}",
        "processors: {span_linker: {decision_wait: 5 s}}",
        "exporters: {otlp_grpc: {sending_queue: {queue_sizes: 1}}}",
        "exporters: {otlp_grpc: {sending_queue: {queue_size: -1}}}",
        "exporters: {otlp_grpc: {compression: lzma}}",
        "exporters: {otlp_grpc: {tls: {insecure: maybe}}}",
        "exporters: {file: {path: 5}}",
        "extensions: {health_chek: }",
        "service: {pipelines: {logs: {receivers: [ebpf], exporters: [debug]}}}",
        "service: {pipelines: {traces: {receiver: [ebpf]}}}",
        "service: {telemetry: {logs: {levle: info}}}",
    ] {
        assert_ne!(against(&validator, text), [""; 0], "{text}");
        let read = Config::parse(&[("x.yaml", text)], PROGRAM.factories, &|_| None);
        let findings = read.unwrap_err().findings.into_iter();
        let mut about_it = findings.filter(|finding| finding.path != "service");
        assert!(about_it.next().is_some(), "{text}");
    }
}

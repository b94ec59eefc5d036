//! The commands of the real binary: what they say where, and with which exit status.
#![cfg(test)]

use std::path::Path;
use std::process::{Command, Output};

const BASE: &str = "../config/agent.yaml";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deeptrace-collector"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("TOKEN", "hunter2")
        .output()
        .unwrap()
}

/// What a command answers when all is well.
fn answer(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (said, complained) = texts(&output);
    assert!(output.status.success(), "{arguments:?}: {complained}");
    said
}

/// What a command complains about.
fn complaint(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (said, complained) = texts(&output);
    assert_eq!((output.status.code(), said.as_str()), (Some(1), ""));
    complained
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn validate_says_what_will_run() {
    let said = answer(&["validate", "--config", BASE]);
    let expected =
        format!("{BASE}: sound\ntraces: ebpf -> memory_limiter -> openings -> otlp_grpc\n");
    assert_eq!(said, expected);
}

#[test]
fn sources_before_and_behind_the_command_are_all_read_in_order() {
    let layer = "yaml:exporters::otlp_grpc::timeout: 7s";
    let set = ["--set", "exporters.otlp_grpc.timeout=9s"];
    let said = answer(&["--config", BASE, "print-config", "--config", layer]);
    assert!(said.contains("timeout: 7s"), "{said}");
    let behind = [
        &["--config", BASE, "print-config", "--config", layer][..],
        &set,
    ]
    .concat();
    assert!(answer(&behind).contains("timeout: 9s"));
    let before = [
        &set[..],
        &["--config", BASE, "print-config", "--config", layer],
    ]
    .concat();
    assert!(answer(&before).contains("timeout: 9s"));
}

#[test]
fn secrets_are_printed_only_when_asked_for() {
    let secret = "exporters.otlp_grpc.headers.authorization=Bearer ${env:TOKEN}";
    let print = ["print-config", "--config", BASE, "--set", secret];
    for format in ["yaml", "json"] {
        let redacted = answer(&[&print[..], &["--format", format]].concat());
        assert!(!redacted.contains("hunter2"), "{redacted}");
        assert!(redacted.contains("[REDACTED]"), "{redacted}");
        let mode = ["--format", format, "--mode", "unredacted"];
        assert!(answer(&[&print[..], &mode].concat()).contains("Bearer hunter2"));
    }
}

#[test]
fn everything_wrong_is_said_at_once_on_stderr() {
    let said = complaint(&[
        "validate",
        "--config",
        BASE,
        "--set",
        "exporters.otlp_grpc.timeot=1s",
        "--set",
        "processors.memory_limiter.limit_mib=${env:NOT_SET_ANYWHERE}",
    ]);
    let lines = [
        "exporters::otlp_grpc::timeot: unknown key, did you mean \"timeout\"?",
        "processors::memory_limiter::limit_mib: expected a whole number, 0 or more, got nothing",
        "environment variable NOT_SET_ANYWHERE is not set and has no default, read as empty",
    ];
    for line in lines {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = complaint(&["validate"]);
    assert!(
        said.contains("no configuration: pass --config FILE"),
        "{said}"
    );
    assert_eq!(run(&["validate", "--confg", BASE]).status.code(), Some(2));
}

#[test]
fn components_are_listed_and_the_schema_knows_each() {
    let said = answer(&["components"]);
    let schema: serde_json::Value = serde_json::from_str(&answer(&["schema"])).unwrap();
    let mut section = "";
    let mut components = 0;
    for line in said.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            section = name;
        }
        if let Some(kind) = line.strip_prefix("    - name: ") {
            let types = &schema["properties"][section]["patternProperties"];
            assert!(
                !types[format!("^{kind}(/[^\\s]+)?$")].is_null(),
                "{section} {kind}"
            );
            components += 1;
        }
    }
    assert!(components > 10, "{said}");
    for line in [
        "buildinfo:",
        "    - name: ebpf",
        "    - name: span_linker",
        "providers:",
    ] {
        assert!(said.lines().any(|known| known == line), "{line}: {said}");
    }
}

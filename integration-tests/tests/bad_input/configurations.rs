//! Configurations that cannot be used: all that is wrong is said, by file, line and path.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::sandbox::Sandbox;

use crate::run::{command, run, skipped};

/// A configuration that works; `>` lines of a case replace the line that has the same key.
const GOOD: &str = "\
receivers:
  ebpf:
    ring_buffer_mib: 1
processors:
  span_linker:
    decision_wait: 1s
exporters:
  debug:
    verbosity: basic
service:
  pipelines:
    traces:
      receivers: [ebpf]
      processors: [span_linker]
      exporters: [debug]
";

/// Name, texts of the files (`{0}` in the command line), and what is said.
struct Case {
    name: &'static str,
    files: Vec<String>,
    said: &'static [&'static str],
}

fn case(name: &'static str, files: &[&str], said: &'static [&'static str]) -> Case {
    let files = files.iter().map(|text| (*text).to_owned()).collect();
    Case { name, files, said }
}

/// One line of the good configuration in another way.
fn changed(
    name: &'static str,
    line: &str,
    into: &str,
    said: &'static [&'static str],
) -> Result<Case> {
    ensure!(GOOD.contains(line), "{line} is not there");
    Ok(case(name, &[&GOOD.replace(line, into)], said))
}

fn cases() -> Result<Vec<Case>> {
    Ok(vec![
        changed(
            "an unknown key",
            "ring_buffer_mib: 1",
            "ring_bufer_mib: 1",
            &[
                "0.yaml:3: receivers::ebpf::ring_bufer_mib: unknown key, did you mean \"ring_buffer_mib\"?",
            ],
        )?,
        changed(
            "an unknown key of a selection rule",
            "ring_buffer_mib: 1",
            "select:\n      - {action: include, port: 80}",
            &["0.yaml:4: receivers::ebpf::select::0::port: unknown key"],
        )?,
        changed(
            "wrong types",
            "ring_buffer_mib: 1",
            "ring_buffer_mib: lots\n    unix_sockets: 3",
            &[
                "0.yaml:3: receivers::ebpf::ring_buffer_mib: expected a whole number, 0 or more, got \"lots\"",
                "0.yaml:4: receivers::ebpf::unix_sockets: expected true or false, got 3",
            ],
        )?,
        changed(
            "a value out of its range",
            "ring_buffer_mib: 1",
            "ring_buffer_mib: 3",
            &["0.yaml:3: receivers::ebpf::ring_buffer_mib: must be a power of two from 1 to 1024"],
        )?,
        changed(
            "a dangling reference",
            "exporters: [debug]",
            "exporters: [debg]",
            &[
                "0.yaml:15: service::pipelines::traces::exporters: references exporter \"debg\" \
               which is not configured, did you mean \"debug\"?",
            ],
        )?,
        changed(
            "a bad duration",
            "decision_wait: 1s",
            "decision_wait: 1 second",
            &["0.yaml:6: processors::span_linker::decision_wait: \
               expected a duration such as 200ms or 1m30s, got \"1 second\""],
        )?,
        changed(
            "no YAML",
            "  ebpf:",
            "  ebpf: [",
            &["0.yaml:", "not valid YAML"],
        )?,
        case(
            "an empty file",
            &[""],
            &["0.yaml: the configuration is empty"],
        ),
        case(
            "two files that contradict each other",
            &[GOOD, "exporters:\n  - debug\n"],
            &[
                "1.yaml:1: exporters: expected a mapping, got a list",
                "0.yaml:15: service::pipelines::traces::exporters: references exporter \"debug\" \
                 which is not configured",
            ],
        ),
        case(
            "a second file that takes away what the first one uses",
            &[
                GOOD,
                "\nservice:\n  pipelines:\n    traces:\n      exporters: []\n",
            ],
            &["1.yaml:5: service::pipelines::traces::exporters: at least one is needed"],
        ),
        case(
            "a mistake in the second of three files",
            &[
                GOOD,
                "exporters:\n  debug:\n    verbosity: loud\n",
                "processors:\n",
            ],
            &[
                "1.yaml:3: exporters::debug::verbosity: \"loud\" is not one of basic, normal, detailed",
                "0.yaml:14: service::pipelines::traces::processors: references processor",
            ],
        ),
    ])
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_file_line_and_path() -> Result<()> {
    if skipped("bad configurations", &[]) {
        return Ok(());
    }
    for Case { name, files, said } in cases()? {
        let sandbox = Sandbox::new()?;
        let mut arguments = Vec::new();
        for (number, text) in files.iter().enumerate() {
            let file = format!("{number}.yaml");
            fs::write(sandbox.dir().join(&file), text)?;
            arguments.extend(["--config".to_owned(), file]);
        }
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for command_name in [None, Some("validate"), Some("doctor")] {
            arguments.extend(command_name);
            let ended = run(&sandbox, &command(&[], &arguments)?)?;
            ensure!(ended.code == Some(1), "{name}: {ended:?}");
            for line in said {
                ensure!(
                    ended.said.contains(line),
                    "{name}: {line} is not said\n{ended:?}"
                );
            }
            arguments.truncate(2 * files.len());
        }
    }
    Ok(())
}

#[test]
fn a_command_line_without_a_usable_file_is_refused() -> Result<()> {
    if skipped("bad command lines", &[]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 1, "no configuration: pass --config FILE"),
        (&["validate"], 1, "no configuration: pass --config FILE"),
        (&["--config", "/"], 1, "/: Is a directory"),
        (
            &["--config", "/no/such.yaml"],
            1,
            "/no/such.yaml: No such file or directory",
        ),
        (&["--config"], 2, "a value is required"),
    ];
    for (arguments, code, said) in cases {
        let ended = run(&sandbox, &command(&[], arguments)?)?;
        let right = ended.code == Some(code) && ended.said.contains(said);
        ensure!(right, "{arguments:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn validate_says_what_is_sound_and_every_warning() -> Result<()> {
    if skipped("validate", &[]) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    fs::write(sandbox.dir().join("0.yaml"), GOOD)?;
    let above = "exporters:\n  otlp: {endpoint: \"${env:NOBODY_SETS_THIS}x:4317\", tls: {insecure: true}}\n\
                 service:\n  pipelines:\n    traces:\n      exporters: [debug, otlp]\n";
    fs::write(sandbox.dir().join("1.yaml"), above)?;
    let arguments = ["validate", "--config", "0.yaml", "--config", "1.yaml"];
    let ended = run(&sandbox, &command(&[], &arguments)?)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    for line in [
        "warning: 1.yaml:2: exporters::otlp::endpoint: environment variable NOBODY_SETS_THIS is not set",
        "warning: 1.yaml:2: exporters::otlp: \"otlp\" is the former name of \"otlp_grpc\"",
        "0.yaml + 1.yaml: sound",
        "traces: ebpf -> span_linker -> debug, otlp",
    ] {
        ensure!(ended.said.contains(line), "{line} is not said\n{ended:?}");
    }
    Ok(())
}

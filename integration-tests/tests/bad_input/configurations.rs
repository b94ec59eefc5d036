//! Configurations that cannot be used: all that is wrong is said, by file, line and path.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::sandbox::Sandbox;

use crate::run::{command, run, skipped};

/// A configuration that works.
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

/// A line of the good configuration and what stands there instead; files laid over it; what is
/// said.
struct Case {
    name: &'static str,
    line: &'static str,
    instead: &'static str,
    above: &'static [&'static str],
    said: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "an unknown key",
        line: "ring_buffer_mib: 1",
        instead: "ring_bufer_mib: 1",
        above: &[],
        said: &[
            "0.yaml:3: receivers::ebpf::ring_bufer_mib: unknown key, did you mean \"ring_buffer_mib\"?",
        ],
    },
    Case {
        name: "an unknown key of a selection rule",
        line: "ring_buffer_mib: 1",
        instead: "select:\n      - {action: include, port: 80}",
        above: &[],
        said: &["0.yaml:4: receivers::ebpf::select::0::port: unknown key"],
    },
    Case {
        name: "mistakes in a selection with a default",
        line: "ring_buffer_mib: 1",
        instead: "select:\n      defalt: include\n      rules:\n      - {action: include, executable: '['}",
        above: &[],
        said: &[
            "0.yaml:4: receivers::ebpf::select::defalt: unknown key, did you mean \"default\"?",
            "0.yaml:6: receivers::ebpf::select::rules::0::executable: not a pattern: unclosed",
        ],
    },
    Case {
        name: "wrong types",
        line: "ring_buffer_mib: 1",
        instead: "ring_buffer_mib: lots\n    unix_sockets: 3",
        above: &[],
        said: &[
            "0.yaml:3: receivers::ebpf::ring_buffer_mib: expected a whole number, 0 or more, got \"lots\"",
            "0.yaml:4: receivers::ebpf::unix_sockets: expected true or false, got 3",
        ],
    },
    Case {
        name: "a value out of its range",
        line: "ring_buffer_mib: 1",
        instead: "ring_buffer_mib: 3",
        above: &[],
        said: &[
            "0.yaml:3: receivers::ebpf::ring_buffer_mib: must be a power of two from 1 to 1024",
        ],
    },
    Case {
        name: "a dangling reference",
        line: "exporters: [debug]",
        instead: "exporters: [debg]",
        above: &[],
        said: &[
            "0.yaml:15: service::pipelines::traces::exporters: references exporter \"debg\" \
             which is not configured, did you mean \"debug\"?",
        ],
    },
    Case {
        name: "a bad duration",
        line: "decision_wait: 1s",
        instead: "decision_wait: 1 second",
        above: &[],
        said: &["0.yaml:6: processors::span_linker::decision_wait: \
             expected a duration such as 200ms or 1m30s, got \"1 second\""],
    },
    Case {
        name: "no YAML",
        line: "  ebpf:",
        instead: "  ebpf: [",
        above: &[],
        said: &["0.yaml:", "not valid YAML"],
    },
    Case {
        name: "an empty file",
        line: GOOD,
        instead: "",
        above: &[],
        said: &["0.yaml: the configuration is empty"],
    },
    Case {
        name: "two files that contradict each other",
        line: "",
        instead: "",
        above: &["exporters:\n  - debug\n"],
        said: &[
            "1.yaml:1: exporters: expected a mapping, got a list",
            "0.yaml:15: service::pipelines::traces::exporters: references exporter \"debug\" \
             which is not configured",
        ],
    },
    Case {
        name: "a second file that takes away what the first one uses",
        line: "",
        instead: "",
        above: &["\nservice:\n  pipelines:\n    traces:\n      exporters: []\n"],
        said: &["1.yaml:5: service::pipelines::traces::exporters: at least one is needed"],
    },
    Case {
        name: "a mistake in the second of three files",
        line: "",
        instead: "",
        above: &[
            "exporters:\n  debug:\n    verbosity: loud\n",
            "processors:\n",
        ],
        said: &[
            "1.yaml:3: exporters::debug::verbosity: \"loud\" is not one of basic, normal, detailed",
            "0.yaml:14: service::pipelines::traces::processors: references processor",
        ],
    },
];

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_file_line_and_path() -> Result<()> {
    if skipped("bad configurations", &[]) {
        return Ok(());
    }
    for Case {
        name,
        line,
        instead,
        above,
        said,
    } in CASES
    {
        let sandbox = Sandbox::new()?;
        let mut arguments = Vec::new();
        let base = GOOD.replacen(line, instead, 1);
        ensure!(
            !above.is_empty() || base != GOOD,
            "{name}: nothing is wrong"
        );
        for (number, text) in [base.as_str()].iter().chain(*above).enumerate() {
            let file = format!("{number}.yaml");
            fs::write(sandbox.dir().join(&file), text)?;
            arguments.extend(["--config".to_owned(), file]);
        }
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for command_name in [None, Some("validate"), Some("doctor")] {
            arguments.extend(command_name);
            let ended = run(&sandbox, &command(&[], &arguments)?)?;
            ensure!(ended.code == Some(1), "{name}: {ended:?}");
            for line in *said {
                ensure!(
                    ended.said.contains(line),
                    "{name}: {line} is not said\n{ended:?}"
                );
            }
            arguments.truncate(2 * (1 + above.len()));
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

//! References in a configuration, and values that come from the command line.

use crate::support::FACTORIES;
use pipeline::{Config, ConfigError, Sources};
use std::fs;
use std::path::Path;

/// Variables, and `DIR` for a folder with files.
fn read(yaml: &str, folder: &Path) -> Result<Config, ConfigError> {
    let folder = folder.display().to_string();
    let env = |name: &str| {
        let value = match name {
            "DIR" => folder.as_str(),
            "HOST" => "jaeger",
            "PORT" => "4317",
            "EMPTY" => "",
            "LIST" => "[debug, 'debug/2']",
            "MAP" => "{spans: 3}",
            "TOKEN" => "0123",
            "QUOTED" => "'0123'",
            "COLON" => "a: b: c",
            "AGAIN" => "http://${env:HOST}:${PORT}",
            "DOLLARS" => "a$$b$c",
            "LOOP" => "x${env:LOOP}",
            _ => return None,
        };
        Some(value.to_owned())
    };
    Config::parse(&[("x.yaml", yaml)], &FACTORIES, &env)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("password", "se$$cret\r\n"),
        (
            "debug.yaml",
            "# all of it\nverbosity: ${file:${env:DIR}/word}\n",
        ),
        ("word", "normal\n"),
        ("bad.yaml", "\n\nverbosity: loud\ntrace: 1s\n"),
        (
            "key.pem",
            "-----BEGIN KEY-----\nMIIE: {\n-----END KEY-----\n",
        ),
        ("self.yaml", "[\"${file:${env:DIR}/self.yaml}\"]"),
    ];
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A configuration with this as the value of a header, which is a text, and what it reads as.
fn text(value: &str) -> Result<String, String> {
    let folder = folder();
    let yaml = format!(
        "receivers: {{feed: }}\nexporters:\n  file:\n    path: {value}\n\
         service: {{pipelines: {{traces: {{receivers: [feed], exporters: [file]}}}}}}"
    );
    let config = read(&yaml, folder.path()).map_err(|error| error.to_string())?;
    let settings = format!("{:?}", config.exporters);
    let (_, path) = settings.split_once("path: \"").unwrap();
    let (path, _) = path.split_once("\", append").unwrap();
    Ok(path.to_owned())
}

#[test]
fn where_text_is_wanted_the_text_of_a_reference_counts_as_it_is() {
    let cases = [
        ("\"${env:HOST}:${env:PORT}\"", "jaeger:4317"),
        ("${PORT}", "4317"),
        ("${TOKEN}", "0123"),
        ("${env:QUOTED}", "'0123'"),
        ("${env:LIST}", "[debug, 'debug/2']"),
        ("${env:COLON}", "a: b: c"),
        ("${env:AGAIN}", "http://jaeger:4317"),
        ("${env:DOLLARS}", "a$b$c"),
        ("${env:NONE:-5}", "5"),
        ("${NONE:-a:b}", "a:b"),
        ("\"${NONE:-a{b}c}\"", "a{b}c"),
        ("${env:NONE:-${env:HOST}}", "jaeger"),
        ("\"x${env:NONE}y\"", "xy"),
        ("\"x${env:EMPTY:-5}y\"", "xy"),
        ("\"${yaml:a: ${env:HOST}}\"", "a: jaeger"),
        ("${file:${env:DIR}/password}", "se$cret"),
        ("\"x-${file:${env:DIR}/password}\"", "x-se$cret"),
        (
            "${file:${env:DIR}/key.pem}",
            "-----BEGIN KEY-----\\nMIIE: {\\n-----END KEY-----",
        ),
        ("$$HOST $${HOST} $HOST", "$HOST ${HOST} $HOST"),
        ("100%$", "100%$"),
    ];
    for (value, expected) in cases {
        assert_eq!(text(value).as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn bad_references_are_errors_where_they_stand() {
    let cases = [
        (
            "\"${env:HOST\"",
            "\"${\" without \"}\", write \"$$\" for a dollar sign",
        ),
        (
            "${env:9}",
            "\"9\" is not the name of an environment variable",
        ),
        ("\"${}\"", "\"\" is not the name of an environment variable"),
        (
            "${file:/none/x}",
            "cannot read /none/x: No such file or directory (os error 2)",
        ),
        (
            "${file:/none/x:-y}",
            "only an environment variable can have a default",
        ),
        (
            "${https://x}",
            "\"${https:…}\" is not supported, only \"${env:…}\", \"${file:…}\", \"${yaml:…}\"",
        ),
        (
            "${env:LOOP}",
            "references lead to references more than 16 times, \"${env:LOOP}\" may refer to itself",
        ),
    ];
    for (value, expected) in cases {
        let expected = format!("x.yaml:4: exporters::file::path: {expected}");
        assert_eq!(text(value), Err(expected), "{value}");
    }
}

const WHOLE: &str = "\
receivers: {feed: \"${env:MAP}\"}
exporters:
  debug: ${file:${env:DIR}/FILE}
  debug/2:
service: {pipelines: {traces: {receivers: [feed], exporters: \"${LIST}\"}}}
";

#[test]
fn a_reference_alone_may_stand_for_a_mapping_or_a_list() {
    let folder = folder();
    let config = read(&WHOLE.replace("FILE", "debug.yaml"), folder.path()).unwrap();
    assert_eq!(
        config.pipelines[0].to_string(),
        "traces: feed -> debug, debug/2"
    );
    let settings = format!("{:?} {:?}", config.receivers, config.exporters);
    assert!(
        settings.contains("spans: 3") && settings.contains("verbosity: Normal"),
        "{settings}"
    );
}

#[test]
fn what_is_wrong_in_a_file_that_is_referred_to_is_named_there() {
    let folder = folder();
    let error = read(&WHOLE.replace("FILE", "bad.yaml"), folder.path()).unwrap_err();
    let file = folder.path().join("bad.yaml");
    let file = file.display();
    assert_eq!(
        error.to_string(),
        format!(
            "{file}:3: exporters::debug::verbosity: \"loud\" is not one of basic, normal, detailed\n\
             {file}:4: exporters::debug::trace: unknown key"
        )
    );
    let error = read(&WHOLE.replace("FILE", "password"), folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.yaml:3: exporters::debug: expected a mapping, got text"
    );
    let error = read(&WHOLE.replace("FILE", "self.yaml"), folder.path()).unwrap_err();
    assert!(error.to_string().contains("more than 16 times"), "{error}");
}

#[test]
fn references_that_multiply_are_stopped() {
    let folder = folder();
    let mut text = "x".repeat(60_000);
    for level in 0..8 {
        let path = folder.path().join(format!("level{level}"));
        let reference = format!("${{file:{}}}", path.display());
        fs::write(&path, &text).unwrap();
        text = format!("- \"{reference}\"\n").repeat(10);
    }
    let error = read(&format!("receivers:\n{text}"), folder.path()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("references bring more than 8388608 bytes"),
        "{said}"
    );
}

fn base(folder: &Path) -> String {
    let path = folder.join("base.yaml");
    let text = "receivers: {feed: {spans: 1}}\nexporters: {debug: , debug/2: }\n\
                service: {pipelines: {traces: {receivers: [feed], exporters: [debug, debug/2]}}}";
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn load(config: &[&str], set: &[&str]) -> Result<Config, String> {
    let sources = Sources {
        config: config.iter().map(|&uri| uri.to_owned()).collect(),
        set: set
            .iter()
            .map(|&assignment| assignment.to_owned())
            .collect(),
    };
    Config::load(&sources, &FACTORIES).map_err(|error| error.to_string())
}

#[test]
fn set_has_the_last_word() {
    let folder = folder();
    let base = base(folder.path());
    let uri = format!("file:{base}");
    let yaml = "yaml:receivers::feed::spans: 5\nservice::pipelines::traces::exporters: [debug/2]";
    let set = [
        "receivers.feed.spans=7",
        "exporters::debug/2::verbosity=normal",
    ];
    let config = load(&[&uri, yaml], &set).unwrap();
    let settings = format!("{:?} {:?}", config.receivers, config.exporters);
    assert!(settings.contains("spans: 7"), "{settings}");
    assert!(settings.contains("verbosity: Normal"), "{settings}");
    assert_eq!(config.pipelines[0].to_string(), "traces: feed -> debug/2");
    // Where text is wanted the value need not be put in quotes twice.
    let set = [
        "exporters.file.path=0123",
        "exporters.debug=",
        "receivers.feed.spans=${env:NO:-9}",
    ];
    let config = load(&[&base], &set).unwrap();
    let settings = format!("{:?} {:?}", config.receivers, config.exporters);
    assert!(settings.contains("path: \"0123\""), "{settings}");
    assert!(settings.contains("spans: 9"), "{settings}");
}

#[test]
fn errors_name_the_option_and_never_its_value() {
    let folder = folder();
    let base = base(folder.path());
    let example = "expected KEY=VALUE such as exporters.otlp_grpc.timeout=2s";
    let cases = [
        ("receivers.feed.spams=7", "--set receivers.feed.spams: receivers::feed::spams: unknown key".to_owned()),
        ("exporters.debug.trace_idle=2", "--set exporters.debug.trace_idle: exporters::debug::trace_idle: expected a duration such as 200ms or 1m30s, got \"2\"".to_owned()),
        ("exporters.debug=[", "--set exporters.debug: exporters::debug: expected a mapping, got text".to_owned()),
        ("exporters.debug", format!("--set exporters.debug: {example}")),
        ("exporters..debug=1", format!("--set exporters..debug: {example}")),
        ("=1", format!("--set : {example}")),
    ];
    for (set, expected) in cases {
        assert_eq!(load(&[&base], &[set]).map(|_| ()), Err(expected), "{set}");
    }
    let cases = [
        (
            "yaml:receivers::feed::spans: secret",
            "yaml:receivers::feed::spans:1: receivers::feed::spans: expected a whole number, 0 or more, got \"secret\"",
        ),
        (
            "env:DEEPTRACE_NOT_SET",
            "env:DEEPTRACE_NOT_SET: the variable is not set",
        ),
        (
            "https://x/y.yaml",
            "https://x/y.yaml: scheme \"https\" is not supported, only env, file, yaml; a file whose name has a \":\" is written file:NAME",
        ),
    ];
    for (uri, expected) in cases {
        assert_eq!(
            load(&[&base, uri], &[]).map(|_| ()),
            Err(expected.to_owned()),
            "{uri}"
        );
    }
}

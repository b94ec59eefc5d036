//! Every configuration that is handed out works: the files of `config/`, and what `docs/usage.md`
//! shows.
#![cfg(test)]

use pipeline::cli::Program;
use pipeline::telemetry::Metrics;
use pipeline::{Config, Service};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads and builds; a variable without a default is an address, as it happens.
fn check(files: &[(&str, &str)], program: &Program) {
    let address = |name: &str| (name == "OTLP_ENDPOINT").then(|| "localhost:4317".to_owned());
    let config = Config::parse(files, program.factories, &address).unwrap_or_else(|error| {
        let (name, text) = files.last().copied().unwrap_or_default();
        panic!("{name}:\n{text}\n{error}")
    });
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    Service::build(&config, Metrics::default()).unwrap();
}

#[test]
fn every_file_of_config_is_sound() {
    let mut checked = 0;
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let program = if path.ends_with("span-linker.yaml") {
                &span_linker::app::PROGRAM
            } else {
                &collector::app::PROGRAM
            };
            let name = path.display().to_string();
            check(&[(&name, &fs::read_to_string(&path).unwrap())], program);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn every_configuration_of_the_usage_page_is_sound() {
    let standalone = fs::read_to_string(root().join("config/standalone.yaml")).unwrap();
    let page = fs::read_to_string(root().join("docs/usage.md")).unwrap();
    let mut blocks = 0;
    for block in page.split("```yaml\n").skip(1) {
        let (yaml, _) = block.split_once("```").unwrap();
        blocks += 1;
        let name = format!("docs/usage.md, block {blocks}");
        let files = [
            ("config/standalone.yaml", standalone.as_str()),
            (&name, yaml),
        ];
        check(&files, &collector::app::PROGRAM);
    }
    assert!(blocks > 3);
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| {
        word.starts_with("deeptrace_") || word.starts_with("otelcol_") && word.len() > 8
    });
    metrics.map(str::to_owned).collect()
}

fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_usage_page_knows_every_metric_and_every_reason() {
    let page = fs::read_to_string(root().join("docs/usage.md")).unwrap();
    let mut texts = Vec::new();
    for folder in ["collector/src", "span-linker/src", "crates/pipeline/src"] {
        sources(&root().join(folder), &mut texts);
    }
    let made = texts.iter().flat_map(|text| {
        let literals = text.split('"').skip(1).step_by(2);
        literals
            .filter(|literal| !literal.contains(' '))
            .flat_map(metrics)
    });
    let made: BTreeSet<String> = made.collect();
    let told = metrics(&page);
    assert!(made.len() > 20, "{made:?}");
    assert_eq!(made.difference(&told).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(told.difference(&made).collect::<Vec<_>>(), [""; 0]);

    let reasons = [
        "crates/ebpf-common/src/settings.rs",
        "crates/pipeline/src/telemetry/loss.rs",
        "collector/src/spans/counts.rs",
        "collector/src/streams/connection.rs",
        "span-linker/src/window/link.rs",
    ];
    for file in reasons {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let words = text
            .split("=> \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let words: Vec<&str> = words.collect();
        assert!(!words.is_empty(), "{file}");
        for word in words.into_iter().filter(|word| *word != "submitted") {
            assert!(page.contains(&format!("`{word}`")), "{file}: {word}");
        }
    }
}

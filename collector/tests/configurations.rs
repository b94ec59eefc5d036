//! Every configuration that is handed out works: the files of `config/`, and what `docs/usage.md`
//! shows.
#![cfg(test)]

use collector::app::FACTORIES;
use pipeline::telemetry::Metrics;
use pipeline::{Config, Service};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads and builds; variables without a default are addresses, as it happens.
fn check(files: &[(&str, &str)]) {
    let variable = |_: &str| Some("localhost:4317".to_owned());
    let config = Config::parse(files, &FACTORIES, &variable).unwrap_or_else(|error| {
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
            let name = path.display().to_string();
            check(&[(&name, &fs::read_to_string(&path).unwrap())]);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

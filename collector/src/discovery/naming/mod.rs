//! What a service is called when nobody instrumented it.
//!
//! In this order: what the target was told (`OTEL_SERVICE_NAME`, then
//! `service.name` in `OTEL_RESOURCE_ATTRIBUTES`), what an interpreter runs
//! (`python app.py` is `app`, not `python3`), the name of the executable.
//! Names are guesses of low cardinality: when in doubt a shorter one.

mod launchers;
mod scripts;

use super::environment::Environment;
use span_model::semconv;
use std::path::Path;

/// What naming looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Where the executable lies; None when it may not be read.
    pub executable: Option<&'a Path>,
    /// The kernel's short name of the process.
    pub short_name: &'a str,
    /// The command line; programs may overwrite it with a title.
    pub arguments: &'a [String],
    /// What relative scripts are relative to.
    pub working_directory: Option<&'a Path>,
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameSource {
    /// `OTEL_SERVICE_NAME` of the target.
    ServiceNameVariable,
    /// `service.name` in `OTEL_RESOURCE_ATTRIBUTES` of the target.
    ResourceAttributes,
    /// The script, module, jar or application that an interpreter runs.
    Script,
    /// The name of the executable.
    Executable,
}

/// A service name and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Never empty.
    pub name: String,
    /// For people who wonder.
    pub source: NameSource,
}

/// Longer names are cut.
const MAX_NAME_CHARS: usize = 255;

/// The `service.name` of a process.
pub fn service_name(environment: &Environment, facts: &Facts<'_>) -> ServiceName {
    let told = environment.resource_attribute(semconv::SERVICE_NAME);
    let candidates = [
        (
            NameSource::ServiceNameVariable,
            environment.service_name.clone(),
        ),
        (NameSource::ResourceAttributes, told.map(str::to_owned)),
        (NameSource::Script, scripts::name(environment, facts)),
        (NameSource::Executable, executable_name(facts)),
    ];
    let clean = |(source, name): (_, Option<String>)| {
        Some(ServiceName {
            name: cleaned(&name?)?,
            source,
        })
    };
    candidates
        .into_iter()
        .find_map(clean)
        .unwrap_or(ServiceName {
            name: "unknown_service".into(),
            source: NameSource::Executable,
        })
}

fn executable_name(facts: &Facts<'_>) -> Option<String> {
    let name = program(facts);
    if name.starts_with("php-fpm") {
        // Debian ships php-fpm8.2; a service does not change its name with its version.
        return Some("php-fpm".into());
    }
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// The program that runs, by its file name. Programs that are many programs in
/// one file go by the name they were called by.
fn program<'a>(facts: &Facts<'a>) -> &'a str {
    let called = facts
        .arguments
        .first()
        .map_or("", |argument| file_name(argument));
    let name = facts
        .executable
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    match name.unwrap_or(facts.short_name) {
        "busybox" | "toybox" | "coreutils" if !called.is_empty() => called.trim_start_matches('-'),
        name if name.starts_with("ld-linux") || name.starts_with("ld-musl") => {
            let program = facts
                .arguments
                .iter()
                .skip(1)
                .find(|argument| !argument.starts_with('-'));
            program.map_or(name, |program| file_name(program))
        }
        // Nix puts a wrapper in front of a program and renames the program.
        name => name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix("-wrapped"))
            .unwrap_or(name),
    }
}

fn file_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

/// Names go into user interfaces and labels: no control characters, no padding.
fn cleaned(name: &str) -> Option<String> {
    let name: String = name
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_NAME_CHARS)
        .collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Which interpreter a process runs, if it is one; for [`super::Runtime`].
pub(super) fn interpreter(facts: &Facts<'_>) -> Option<&'static str> {
    scripts::interpreter(program(facts)).map(|interpreter| interpreter.name)
}

#[cfg(test)]
mod tests;

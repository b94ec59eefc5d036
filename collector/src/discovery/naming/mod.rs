//! What a service is called when nobody instrumented it.
//!
//! In this order: what the target was told (`OTEL_SERVICE_NAME`, then
//! `service.name` in `OTEL_RESOURCE_ATTRIBUTES`), what an interpreter runs
//! (`python app.py` is `app`, not `python3`), the name of the executable.
//! Names are guesses of low cardinality: when in doubt a shorter one.

mod launchers;
mod scripts;
mod titles;

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

/// The kernel cuts names of processes to this length.
const SHORT_NAME_BYTES: usize = 15;
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

/// The file name of the executable, links resolved.
fn file<'a>(facts: &Facts<'a>) -> &'a str {
    let name = facts.executable.and_then(Path::file_name);
    name.and_then(|name| name.to_str())
        .unwrap_or(facts.short_name)
}

/// The program that runs, by the name that people call it by: Debian's
/// `redis-server` is a link to `redis-check-rdb`, and busybox is many programs.
fn program<'a>(facts: &Facts<'a>) -> &'a str {
    let file = file(facts);
    if file.starts_with("ld-linux") || file.starts_with("ld-musl") {
        let mut arguments = facts.arguments.iter().skip(1);
        let program = arguments.find(|argument| !argument.starts_with('-'));
        return program.map_or(file, |program| file_name(program));
    }
    // The first word: a title goes on after it.
    let first = facts.arguments.first().map_or("", String::as_str);
    let word = first.split(' ').next().unwrap_or_default();
    let called = file_name(word)
        .trim_start_matches('-')
        .trim_end_matches(':');
    // What was given to exec gives the kernel's name for the process; the first
    // argument alone may be anything.
    let is_link = !called.is_empty()
        && called != file
        && (called == facts.short_name
            || facts.short_name.len() == SHORT_NAME_BYTES && called.starts_with(facts.short_name));
    match file {
        _ if is_link => called,
        "busybox" | "toybox" | "coreutils" if !called.is_empty() => called,
        // A program that lives in memory only, under a name of no meaning.
        file if file.starts_with("memfd:") && !called.is_empty() => called,
        // Nix puts a wrapper in front of a program and renames the program.
        file => {
            let inner = file.strip_prefix('.');
            inner
                .and_then(|inner| inner.strip_suffix("-wrapped"))
                .unwrap_or(file)
        }
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
    scripts::interpreter_of(facts).map(|interpreter| interpreter.name)
}

#[cfg(test)]
mod tests;

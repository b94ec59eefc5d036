//! Interpreted programs that overwrite their command line with a title.

use super::scripts::stem;
use super::{file_name, launchers};
use crate::discovery::environment::Environment;

/// What the title says is run.
pub(super) fn name(title: &str, environment: &Environment) -> Option<String> {
    let bracketed = title
        .rsplit_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(inner, _)| inner);
    if title.starts_with("gunicorn: ") {
        return bracketed.map(launchers::application_name);
    }
    if let Some((_, arguments)) = title
        .split_once("(worker ")
        .or_else(|| title.split_once(" worker "))
        && title.contains("celery")
    {
        let words: Vec<String> = arguments.split([' ', ')']).map(str::to_owned).collect();
        return launchers::name("celery", &words, environment);
    }
    // puma 6.4.0 (tcp://0.0.0.0:3000) [shop]
    if let Some(directory) =
        bracketed.filter(|inner| title.starts_with("puma") && !inner.contains(' '))
    {
        return Some(directory.to_owned());
    }
    if let Some(package) = &environment.package_name {
        return Some(file_name(package).to_owned());
    }
    let word = title.split([' ', ':', '(']).next()?.trim_start_matches('[');
    Some(stem(word).to_owned()).filter(|word| !word.is_empty())
}

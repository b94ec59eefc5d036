//! What is wrong with a configuration: every finding names file, line and path.

use std::fmt;
use std::sync::Arc;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Line, from 1; 0 = the file as a whole.
    pub line: usize,
}

impl Place {
    /// A file as a whole.
    pub(super) fn whole(file: &str) -> Self {
        Self {
            file: Arc::from(file),
            line: 0,
        }
    }
}

/// One thing that is wrong, or (as a warning) only old.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it stands.
    pub place: Place,
    /// `exporters::otlp_grpc::endpoint`; empty = the file as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.file)?;
        if self.place.line > 0 {
            write!(f, ":{}", self.place.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong with a configuration, in the order of the file.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigError {
    /// Never empty.
    pub findings: Vec<Finding>,
    /// What works but should be changed: a variable that is not set may be the reason of an error.
    pub warnings: Vec<Finding>,
}

impl ConfigError {
    /// When there is nothing to read.
    pub(super) fn nothing() -> Self {
        let finding = Finding {
            place: Place::whole("configuration"),
            path: String::new(),
            message: "no file is given".to_owned(),
        };
        Self {
            findings: vec![finding],
            warnings: Vec::new(),
        }
    }

    fn lines(&self) -> String {
        let errors = self.findings.iter().map(ToString::to_string);
        let warnings = self.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let lines: Vec<String> = errors.chain(warnings).collect();
        lines.join("\n")
    }
}

/// Collects findings while a configuration is read.
#[derive(Debug, Default)]
pub struct Report {
    /// What makes the configuration unusable.
    pub errors: Vec<Finding>,
    /// What works but should be changed.
    pub warnings: Vec<Finding>,
}

impl Report {
    /// Notes what makes the configuration unusable; the same finding counts once.
    pub fn error(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        push(&mut self.errors, place, path, message.into());
    }

    /// Notes what works but should be changed.
    pub fn warn(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        push(&mut self.warnings, place, path, message.into());
    }

    /// Whether the value under this path is known to be wrong: then it is not judged again.
    pub fn has_error_at(&self, path: &str) -> bool {
        self.errors.iter().any(|error| error.path == path)
    }

    /// Ends with an error if there is any.
    pub fn finish(mut self) -> Result<Vec<Finding>, ConfigError> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort();
        Err(ConfigError {
            findings: self.errors,
            warnings: self.warnings,
        })
    }
}

fn push(findings: &mut Vec<Finding>, place: &Place, path: &str, message: String) {
    let finding = Finding {
        place: place.clone(),
        path: path.to_owned(),
        message,
    };
    if !findings.contains(&finding) {
        findings.push(finding);
    }
}

/// `, did you mean "endpoint"?` when one of the known words is near enough.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = |candidate: &&str| {
        let distance = strsim::damerau_levenshtein(word, candidate);
        distance <= 1 + word.chars().count().max(candidate.chars().count()) / 5
    };
    let best = known
        .into_iter()
        .filter(near)
        .min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate));
    best.map(|best| format!(", did you mean \"{best}\"?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_offered_and_a_far_one_is_not() {
        let known = ["endpoint", "headers", "tls"];
        assert_eq!(
            did_you_mean("endpont", known),
            ", did you mean \"endpoint\"?"
        );
        assert_eq!(did_you_mean("header", known), ", did you mean \"headers\"?");
        assert_eq!(did_you_mean("flavour", known), "");
        assert_eq!(did_you_mean("", known), "");
    }
}

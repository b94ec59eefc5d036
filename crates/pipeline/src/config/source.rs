//! Where a configuration comes from: files, environment variables, text of the command line.

use super::expand::Lookup;
use super::node::{self, Entry, Node, Value};
use super::report::{Place, Report};
use super::{MAX_FILE_BYTES, merge};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Sources that one configuration may be made of.
const MAX_SOURCES: usize = 100;
/// Schemes in front of the `:` of a `--config`.
pub const SCHEMES: [&str; 3] = ["env", "file", "yaml"];

/// What `--config` and `--set` name, in the order in which they are laid over each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Sources {
    /// Configuration: a file, `file:PATH`, `env:VARIABLE` or `yaml:a::b: value`; of several,
    /// later ones are laid over earlier ones.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<String>,
    /// One value, laid over every --config: `exporters.otlp_grpc.timeout=2s`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Sources {
    /// Files (or URIs) alone.
    pub fn of<S: Into<String>>(config: impl IntoIterator<Item = S>) -> Self {
        Self {
            config: config.into_iter().map(Into::into).collect(),
            set: Vec::new(),
        }
    }

    /// These, and those above them.
    #[must_use]
    pub fn and(&self, above: &Self) -> Self {
        Self {
            config: [self.config.as_slice(), &above.config].concat(),
            set: [self.set.as_slice(), &above.set].concat(),
        }
    }

    /// Reads every source and lays each over those before it. None: nothing is there, or
    /// something could not be read, which would make the rest look wrong where it is not.
    pub(super) fn read(&self, env: Lookup<'_>, report: &mut Report) -> Option<Node> {
        let errors_before = report.errors.len();
        let mut root = None;
        for uri in self.config.iter().take(MAX_SOURCES) {
            if let Some(node) = fetch(uri, env, report) {
                root = Some(lay_over(root, node, report));
            }
        }
        if let Some(uri) = self.config.get(MAX_SOURCES) {
            let place = Place::whole(printable(uri));
            report.error(&place, "", format!("more than {MAX_SOURCES} files"));
        }
        for assignment in &self.set {
            if let Some(node) = assigned(assignment, report) {
                root = Some(lay_over(root, node, report));
            }
        }
        root.filter(|_| report.errors.len() == errors_before)
    }
}

/// `base.yaml + site.yaml + --set a.b`: never the values.
impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configs = self.config.iter().map(|uri| printable(uri).to_owned());
        let sets = self.set.iter().map(|assignment| {
            let key = assignment.split('=').next().unwrap_or_default();
            format!("--set {key}")
        });
        let names: Vec<String> = configs.chain(sets).collect();
        f.write_str(&names.join(" + "))
    }
}

/// Lays a source over those before it.
pub(super) fn lay_over(base: Option<Node>, above: Node, report: &mut Report) -> Node {
    match base {
        None => above,
        Some(base) => merge::lay_over(base, above, report),
    }
}

/// One `--config`.
fn fetch(uri: &str, env: Lookup<'_>, report: &mut Report) -> Option<Node> {
    let (scheme, rest) = scheme(uri).unwrap_or(("file", uri));
    match scheme {
        "file" => match read_file(Path::new(rest)) {
            Ok(text) => node::parse(rest, &text, report),
            Err(error) => {
                report.error(&Place::whole(rest), "", error.to_string());
                None
            }
        },
        "env" => {
            let text = env(rest);
            if text.is_none() {
                report.error(&Place::whole(uri), "", "the variable is not set");
            }
            node::parse(uri, &text?, report)
        }
        "yaml" => {
            let node = node::parse(printable(uri), rest, report)?;
            Some(nested(node, report))
        }
        _ => {
            let message = format!(
                "scheme \"{scheme}\" is not supported, only {}; a file whose name has a \":\" is \
                 written file:NAME",
                SCHEMES.join(", ")
            );
            report.error(&Place::whole(printable(uri)), "", message);
            None
        }
    }
}

/// What stands in front of the first `:`, if it can be a scheme: two letters at least, as in the
/// Collector.
fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let can_be = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
    can_be.then_some((scheme, rest))
}

/// A source as messages name it: of text on the command line the first key alone, since what
/// follows may be a password.
fn printable(uri: &str) -> &str {
    match uri.strip_prefix("yaml:") {
        Some(text) => {
            let key = text.find([' ', '\n', '{', '[', '"', '\'']);
            let key = key.unwrap_or(text.len()).min(80);
            let mut end = "yaml:".len() + key;
            while !uri.is_char_boundary(end) {
                end -= 1;
            }
            uri.get(..end).unwrap_or("yaml:").trim_end_matches(':')
        }
        None => uri,
    }
}

/// `KEY=VALUE` of a `--set`. Its place never shows the value.
fn assigned(assignment: &str, report: &mut Report) -> Option<Node> {
    let (key, text) = assignment.split_once('=').unwrap_or((assignment, ""));
    let place = Place::whole(&format!("--set {key}"));
    let separator = if key.contains("::") { "::" } else { "." };
    let keys: Vec<&str> = key.split(separator).collect();
    if !assignment.contains('=') || keys.iter().any(|key| key.is_empty()) {
        let example = "expected KEY=VALUE such as exporters.otlp_grpc.timeout=2s";
        report.error(&place, "", example);
        return None;
    }
    let mut found = Report::default();
    let value = match node::parse(&place.file, text, &mut found) {
        Some(mut value) => {
            for error in found.errors {
                report.error(&place, "", error.message);
            }
            value.relocate(&place);
            value.keep_text(text);
            value
        }
        // Not YAML, as a password may be: a text.
        None => Node::text(place, text.to_owned()),
    };
    Some(under(&keys, value))
}

/// The value as the innermost of mappings with one key each.
fn under(keys: &[&str], value: Node) -> Node {
    keys.iter().rev().fold(value, |node, key| {
        let place = node.place.clone();
        let entry = Entry {
            key: (*key).to_owned(),
            key_place: place.clone(),
            node,
        };
        Node::new(place, Value::Map(vec![entry]))
    })
}

/// Takes the keys `a::b` of a mapping apart.
fn nested(node: Node, report: &mut Report) -> Node {
    let Value::Map(entries) = node.value else {
        return node;
    };
    let place = node.place;
    let mut root = Node::new(place, Value::Map(Vec::new()));
    for entry in entries {
        let keys: Vec<&str> = entry.key.split("::").map(str::trim).collect();
        root = merge::lay_over(root, under(&keys, entry.node), report);
    }
    root
}

/// A file as text, if it is no larger than a configuration may be.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let message = format!("larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}

//! References in the values of a tree, as in the Collector: `${env:NAME}`, `${NAME}`,
//! `${env:NAME:-default}`, `${file:PATH}`, `${yaml:TEXT}`, each within another, and `$$` for a
//! dollar sign.
//!
//! A value that is one reference alone is read as YAML and takes the type it has there; where text
//! is wanted, its text counts as it is (`0123` stays `0123`). A reference within other text puts
//! its text in. What a reference brings is expanded again.

use super::join;
use super::node::{self, Node, Scalar, Value};
use super::report::{Place, Report};
use super::source::{SCHEMES, read_file};
use std::path::Path;

/// References within what a reference brings: more is taken for one that refers to itself.
const MAX_DEPTH: usize = 16;
/// References that one configuration may have, each counted as often as it is followed.
const MAX_REFERENCES: usize = 10_000;
/// Bytes that all references of a configuration may bring together.
const MAX_BYTES: usize = 8 << 20;

/// Looks up an environment variable; a parameter so that tests have their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every value below the node; keys are left as they are.
pub fn expand(node: &mut Node, env: Lookup<'_>, report: &mut Report) {
    let mut expander = Expander {
        env,
        report,
        references: 0,
        bytes: 0,
    };
    expander.walk(node, "", 0);
}

struct Expander<'a> {
    env: Lookup<'a>,
    report: &'a mut Report,
    references: usize,
    bytes: usize,
}

/// Where a reference stands.
#[derive(Clone, Copy)]
struct At<'a> {
    place: &'a Place,
    path: &'a str,
    depth: usize,
}

impl At<'_> {
    fn deeper(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

/// What a reference brought.
struct Content {
    text: String,
    /// If it is a file: values of it stand there.
    file: Option<String>,
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self { text, file: None }
    }
}

impl Expander<'_> {
    fn walk(&mut self, node: &mut Node, path: &str, depth: usize) {
        let place = node.place.clone();
        let at = At {
            place: &place,
            path,
            depth,
        };
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(item, &join(path, &index.to_string()), depth);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.walk(&mut entry.node, &join(path, &entry.key), depth);
                }
            }
            Value::Scalar(scalar) if scalar.text.contains('$') => {
                let scalar = scalar.clone();
                self.or_report(at, |expander| {
                    let mut new = expander.scalar(&scalar, at)?;
                    if let (None, Some(text)) = (&new.verbatim, &node.verbatim) {
                        new.keep_text(&expander.string(text, at)?);
                    }
                    *node = new;
                    Ok(())
                });
                return;
            }
            Value::Null | Value::Scalar(_) => {}
        }
        if let Some(text) = node.verbatim.take_if(|text| text.contains('$')) {
            self.or_report(at, |expander| {
                let text = expander.string(&text, at)?;
                node.verbatim = Some(text.into());
                Ok(())
            });
        }
    }

    fn or_report(&mut self, at: At<'_>, body: impl FnOnce(&mut Self) -> Result<(), String>) {
        if let Err(message) = body(self) {
            self.report.error(at.place, at.path, message);
        }
    }

    fn scalar(&mut self, scalar: &Scalar, at: At<'_>) -> Result<Node, String> {
        if let Some(reference) = alone(&scalar.text) {
            let content = self.follow(reference, at)?;
            return self.value(content, at);
        }
        let text = self.string(&scalar.text, at)?;
        let style = scalar.style;
        let value = Value::Scalar(Scalar { text, style });
        Ok(Node::new(at.place.clone(), value))
    }

    /// What a reference alone stands for. Quotes around it mean nothing, as in the Collector.
    fn value(&mut self, content: Option<Content>, at: At<'_>) -> Result<Node, String> {
        let Some(Content { text, file }) = content else {
            return Ok(Node::empty(at.place.clone()));
        };
        let name = file.as_deref().unwrap_or(&at.place.file);
        let mut found = Report::default();
        let Some(mut node) = node::parse(name, &text, &mut found) else {
            // Not YAML: a text that happens to have a colon, a key in PEM.
            let text = self.string(&text, at.deeper())?;
            return Ok(Node::text(at.place.clone(), text));
        };
        for error in found.errors {
            let place = if file.is_some() {
                &error.place
            } else {
                at.place
            };
            self.report.error(place, at.path, error.message);
        }
        if file.is_none() || !matches!(node.value, Value::Map(_) | Value::List(_)) {
            node.relocate(at.place);
        }
        node.keep_text(&text);
        self.walk(&mut node, at.path, at.depth + 1);
        Ok(node)
    }

    /// A text with its references put in.
    fn string(&mut self, text: &str, at: At<'_>) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = tail.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = tail.strip_prefix('{') {
                let end =
                    closing(after).ok_or("\"${\" without \"}\", write \"$$\" for a dollar sign")?;
                let (reference, after) = after.split_at(end);
                rest = after.strip_prefix('}').unwrap_or(after);
                if let Some(content) = self.follow(reference, at)? {
                    out.push_str(&self.string(&content.text, at.deeper())?);
                }
            } else {
                out.push('$');
                rest = tail;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What the reference between `${` and `}` stands for. None: a variable that is not set.
    fn follow(&mut self, reference: &str, at: At<'_>) -> Result<Option<Content>, String> {
        if at.depth >= MAX_DEPTH {
            return Err(format!(
                "references lead to references more than {MAX_DEPTH} times, \"${{{reference}}}\" \
                 may refer to itself"
            ));
        }
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(format!("more than {MAX_REFERENCES} references"));
        }
        let content = match reference.strip_prefix("yaml:") {
            Some(yaml) => Some(yaml.to_owned().into()),
            None => self.look_up(reference, at)?,
        };
        self.bytes += content.as_ref().map_or(0, |content| content.text.len());
        if self.bytes > MAX_BYTES {
            return Err(format!("references bring more than {MAX_BYTES} bytes"));
        }
        Ok(content)
    }

    /// The name may hold references: `${file:${env:PLACE}}`.
    fn look_up(&mut self, reference: &str, at: At<'_>) -> Result<Option<Content>, String> {
        let (name, default) = match split_default(reference) {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let name = self.string(name, at.deeper())?;
        match (name.split_once(':'), default) {
            (None, _) => self.variable(&name, default, at),
            (Some(("env", name)), _) => self.variable(name, default, at),
            (Some(("file", path)), None) => file(path).map(Some),
            (Some(("file", _)), Some(_)) => {
                Err("only an environment variable can have a default".to_owned())
            }
            (Some((scheme, _)), _) => {
                let known = SCHEMES.map(|scheme| format!("\"${{{scheme}:…}}\""));
                Err(format!(
                    "\"${{{scheme}:…}}\" is not supported, only {}",
                    known.join(", ")
                ))
            }
        }
    }

    fn variable(
        &mut self,
        name: &str,
        default: Option<&str>,
        at: At<'_>,
    ) -> Result<Option<Content>, String> {
        let mut letters = name.chars();
        let starts_well = letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(format!(
                "\"{name}\" is not the name of an environment variable"
            ));
        }
        let found = (self.env)(name).or_else(|| default.map(str::to_owned));
        if found.is_none() {
            let message =
                format!("environment variable {name} is not set and has no default, read as empty");
            self.report.warn(at.place, at.path, message);
        }
        Ok(found.map(Content::from))
    }
}

/// The line break at the end, which editors put there, is no part of a password.
fn file(path: &str) -> Result<Content, String> {
    let mut text =
        read_file(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}"))?;
    if text.ends_with('\n') {
        text.pop();
        text.truncate(text.trim_end_matches('\r').len());
    }
    Ok(Content {
        text,
        file: Some(path.to_owned()),
    })
}

/// The reference that a text consists of, if it is that alone.
fn alone(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("${")?;
    let end = closing(inner)?;
    (end + 1 == inner.len()).then(|| inner.get(..end))?
}

/// Where the `}` stands that ends a reference; braces within it come in pairs.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// `name:-default`, where the `:-` stands in no reference within.
fn split_default(reference: &str) -> Option<(&str, &str)> {
    let mut open = 0_usize;
    for (at, letter) in reference.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open = open.saturating_sub(1),
            ':' if open == 0 => {
                let (name, rest) = reference.split_at_checked(at)?;
                if let Some(default) = rest.strip_prefix(":-") {
                    return Some((name, default));
                }
            }
            _ => {}
        }
    }
    None
}

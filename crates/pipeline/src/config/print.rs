//! A configuration as it is used: merged, expanded, and on request without its secrets.

use super::node::{Node, Scalar, Style, Value};
use super::scalar::{as_bool, as_float, as_int, is_text};
use serde_json::{Number, Value as Json};
use std::fmt::{self, Write as _};

/// What stands for a secret, as in the Collector.
const REDACTED: &str = "[REDACTED]";
/// Parts of keys whose values are secrets.
const SECRET_WORDS: &[&str] = &[
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "passphrase",
    "password",
    "secret",
    "token",
];

/// Words that YAML takes for something else, in one of its versions.
const OTHER_WORDS: &[&str] = &["null", "y", "yes", "n", "no", "on", "off"];

/// A configuration after all sources are merged and all references are followed.
#[derive(Clone)]
pub struct Tree(pub(crate) Node);

/// Says nothing: it may hold passwords.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tree")
    }
}

impl Tree {
    /// The values under the roots, with their places.
    pub fn node(&self) -> &Node {
        &self.0
    }

    /// The same without headers, keys, passwords and tokens.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut node = self.0.clone();
        redact(&mut node, false);
        Self(node)
    }

    /// As YAML.
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        write_yaml(&self.0, 0, &mut out);
        out.trim_start().to_owned()
    }

    /// As JSON, indented.
    pub fn json(&self) -> String {
        format!("{:#}\n", json(&self.0))
    }
}

/// The node as JSON: what its scalars look like decides what they are.
pub fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(scalar) => scalar_json(scalar, node.verbatim.is_some()),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let pairs = entries
                .iter()
                .map(|entry| (entry.key.clone(), json(&entry.node)));
            pairs.collect()
        }
    }
}

/// What a reference brought may be meant as text where it is written unlike JSON writes numbers
/// (`0123`, `0x10`); what stands in a file without quotes is a number.
fn scalar_json(scalar: &Scalar, referred: bool) -> Json {
    let text = scalar.text.as_str();
    if scalar.style == Style::Quoted {
        return text.into();
    }
    if let Some(truth) = as_bool(text) {
        return truth.into();
    }
    let as_written = text.parse::<Number>().ok();
    let read = || {
        let whole = as_int(text).and_then(Number::from_i128);
        whole.or_else(|| as_float(text).and_then(Number::from_f64))
    };
    match as_written.or_else(|| (!referred).then(read)?) {
        Some(number) => Json::Number(number),
        None => text.into(),
    }
}

/// `below`: under `headers`, where every value is a secret.
fn redact(node: &mut Node, below: bool) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => {
            if below {
                *node = redacted(node);
            } else if let Some(text) = without_password(&scalar.text) {
                scalar.text = text;
                node.verbatim = None;
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| redact(item, below)),
        Value::Map(entries) => {
            for entry in entries {
                let name = below && entry.key == "name";
                redact(&mut entry.node, (below && !name) || is_secret(&entry.key));
            }
        }
    }
}

fn redacted(node: &Node) -> Node {
    Node::text(node.place.clone(), REDACTED.to_owned())
}

/// Whether what stands under this key must not be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "headers" || key.ends_with("_pem") || SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// `http://user:password@host` with the password taken out; None: there is none.
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, host) = authority.rsplit_once('@')?;
    let (user, _) = user.split_once(':')?;
    let path = rest.strip_prefix(authority)?;
    Some(format!("{scheme}://{user}:{REDACTED}@{host}{path}"))
}

/// Begins with a line break unless it is a scalar or empty, which stand behind their key.
fn write_yaml(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str(" null"),
        Value::Scalar(scalar) => {
            out.push(' ');
            out.push_str(&yaml_scalar(scalar));
        }
        Value::List(items) if items.is_empty() => out.push_str(" []"),
        Value::Map(entries) if entries.is_empty() => out.push_str(" {}"),
        Value::List(items) => {
            for item in items {
                let mut text = String::new();
                write_yaml(item, indent + 2, &mut text);
                let _ = write!(out, "\n{:indent$}- {}", "", text.trim_start());
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let key = yaml_text(&entry.key);
                let _ = write!(out, "\n{:indent$}{key}:", "");
                write_yaml(&entry.node, indent + 2, out);
            }
        }
    }
    if indent == 0 {
        out.push('\n');
    }
}

fn yaml_scalar(scalar: &Scalar) -> String {
    match scalar.style {
        Style::Plain if !is_text(&scalar.text) => scalar.text.clone(),
        _ => yaml_text(&scalar.text),
    }
}

/// In quotes wherever plain text might be taken for something else. JSON's quoting is YAML's too.
fn yaml_text(text: &str) -> String {
    let number = text.starts_with(|c: char| c.is_ascii_digit());
    let harmless = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/_".contains(c))
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_-.@".contains(c) || c == ':' && !number)
        && !text.ends_with(':')
        && is_text(text)
        && !OTHER_WORDS.contains(&text.to_ascii_lowercase().as_str());
    if harmless {
        text.to_owned()
    } else {
        Json::String(text.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Factories;
    use crate::{exporters, extensions};
    use serde_json::json;

    /// Names of properties that hold a secret, or a mapping with secrets.
    fn secrets(schema: &Json, definitions: &Json, names: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let holds = |schema: &Json| {
                let name = schema["$ref"].as_str().unwrap_or_default();
                let name = name.rsplit('/').next().unwrap_or_default();
                definitions[name]["writeOnly"] == json!(true)
            };
            let within = [
                property,
                &property["additionalProperties"],
                &property["items"],
                &property["allOf"][0],
                &property["anyOf"][0],
            ];
            if within.into_iter().any(holds) {
                names.push(name.clone());
            }
            secrets(property, definitions, names);
        }
    }

    #[test]
    fn every_setting_of_a_secret_type_is_redacted() {
        let factories = Factories {
            receivers: &[],
            processors: &[],
            exporters: exporters::ALL,
            extensions: extensions::ALL,
        };
        let schema = crate::config::schema(&factories, "test");
        let definitions = &schema["definitions"];
        let mut names = Vec::new();
        for definition in definitions.as_object().into_iter().flatten() {
            secrets(definition.1, definitions, &mut names);
        }
        assert!(names.contains(&"headers".to_owned()), "{names:?}");
        for name in names {
            assert!(is_secret(&name), "{name}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_taken_out() {
        let cases = [
            (
                "http://u:p@host:1/x?y",
                Some("http://u:[REDACTED]@host:1/x?y"),
            ),
            ("http://u:p@q@host", Some("http://u:[REDACTED]@host")),
            ("http://u@host", None),
            ("http://host/a:b@c", None),
            ("host:4317", None),
        ];
        for (url, expected) in cases {
            assert_eq!(without_password(url).as_deref(), expected, "{url}");
        }
    }
}

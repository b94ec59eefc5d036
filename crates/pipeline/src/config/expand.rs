//! `${env:VAR}`, `${env:VAR:-default}` and `$$` in the values of a tree.

use super::node::{Node, Scalar, Style, Value};
use super::report::Report;

/// Looks up an environment variable; a parameter so that tests have their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands every value below the node; keys are left as they are.
pub fn expand(node: &mut Node, lookup: Lookup<'_>, report: &mut Report) {
    walk(node, "", lookup, report);
}

fn walk(node: &mut Node, path: &str, lookup: Lookup<'_>, report: &mut Report) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &super::join(path, &index.to_string()), lookup, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                walk(
                    &mut entry.node,
                    &super::join(path, &entry.key),
                    lookup,
                    report,
                );
            }
        }
        Value::Scalar(scalar) if scalar.text.contains('$') => {
            let mut warnings = Vec::new();
            let result = expand_scalar(scalar, lookup, &mut warnings);
            for warning in warnings {
                report.warn(&node.place, path, warning);
            }
            match result {
                Ok(value) => node.value = value,
                Err(message) => report.error(&node.place, path, message),
            }
        }
        Value::Null | Value::Scalar(_) => {}
    }
}

fn expand_scalar(
    scalar: &Scalar,
    lookup: Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<Value, String> {
    let mut out = String::new();
    let mut rest = scalar.text.as_str();
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let tail = tail.strip_prefix('$').unwrap_or(tail);
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = tail.strip_prefix('{') {
            let end = after
                .find('}')
                .ok_or("\"${\" without \"}\", write \"$$\" for a dollar sign")?;
            let (reference, after) = after.split_at(end);
            rest = after.strip_prefix('}').unwrap_or(after);
            let found = resolve(reference, lookup, warnings)?;
            if before.is_empty() && out.is_empty() && rest.is_empty() {
                // A value that is one reference alone takes the type that the field wants.
                return Ok(alone(found));
            }
            out.push_str(&found.unwrap_or_default());
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    Ok(Value::Scalar(Scalar {
        text: out,
        style: scalar.style,
    }))
}

fn alone(found: Option<String>) -> Value {
    match found {
        None => Value::Null,
        // Quotes around the reference mean nothing, as in the Collector.
        Some(text) => Value::Scalar(Scalar {
            text,
            style: Style::Expanded,
        }),
    }
}

fn resolve(
    reference: &str,
    lookup: Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, String> {
    let name = match reference.split_once(':') {
        Some(("env", name)) => name,
        Some((_, rest)) if rest.starts_with('-') => reference,
        Some((scheme, _)) => {
            return Err(format!(
                "\"${{{scheme}:…}}\" is not supported, only \"${{env:…}}\""
            ));
        }
        None => reference,
    };
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    let mut letters = name.chars();
    let starts_well = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err(format!(
            "\"{name}\" is not the name of an environment variable"
        ));
    }
    let found = lookup(name).or_else(|| default.map(str::to_owned));
    if found.is_none() {
        warnings.push(format!(
            "environment variable {name} is not set and has no default, read as empty"
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOST" => Some("jaeger".to_owned()),
            "PORT" => Some("4317".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let scalar = Scalar {
            text: text.to_owned(),
            style: Style::Plain,
        };
        match expand_scalar(&scalar, &lookup, &mut Vec::new())? {
            Value::Scalar(scalar) => Ok(format!("{:?} {}", scalar.style, scalar.text)),
            _ => Ok("nothing".to_owned()),
        }
    }

    #[test]
    fn references_are_put_in() {
        let cases = [
            ("${env:HOST}:${env:PORT}", "Plain jaeger:4317"),
            ("${PORT}", "Expanded 4317"),
            ("${env:NONE:-5}", "Expanded 5"),
            ("${NONE:-a:b}", "Expanded a:b"),
            ("${env:NONE:-}", "Expanded "),
            ("${env:EMPTY:-5}", "Expanded "),
            ("${env:NONE}", "nothing"),
            ("x${env:NONE}y", "Plain xy"),
            ("$$HOST $${HOST} $HOST", "Plain $HOST ${HOST} $HOST"),
            ("100%$", "Plain 100%$"),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_references_are_errors() {
        for text in ["${env:HOST", "${file:x}", "${env:9}", "${}", "${env:a b}"] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}

//! The JSON schema of a whole configuration, made from the settings' types, for editors.
//!
//! It is as lenient as reading is: what a reference may bring is not known, `key:` alone is an
//! empty section; and as strict: an unknown key is an error. What depends on other values (a
//! dangling reference, `max` below `min`) only `validate` finds.

use super::ROOTS;
use super::service::RawService;
use crate::component::{Factories, Factory};
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// What is found in a text that has a reference.
const REFERENCE: &str = r"\$\{";

/// The schema of configurations that may name these components. Draft 7, which every editor knows.
pub fn schema(factories: &Factories, title: &str) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let sections = [
        section(factories.receivers, &mut generator),
        section(factories.processors, &mut generator),
        section(factories.exporters, &mut generator),
        section(factories.extensions, &mut generator),
        generator.subschema_for::<RawService>().to_value(),
    ];
    let roots: Map<String, Value> = ROOTS
        .iter()
        .map(|root| (*root).to_owned())
        .zip(sections)
        .collect();
    let definitions = generator.take_definitions(true);
    let whole = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "properties": roots,
        "definitions": definitions,
    });
    let mut whole = Schema::try_from(whole).unwrap_or_else(|_| true.into());
    RecursiveTransform(close).transform(&mut whole);
    RecursiveTransform(loosen).transform(&mut whole);
    whole.to_value()
}

/// `receivers:` and so on: `type` or `type/name`, each with the settings of its type.
fn section<S: ?Sized>(factories: &[Factory<S>], generator: &mut SchemaGenerator) -> Value {
    let mut types = Map::new();
    for factory in factories {
        let settings = (factory.schema)(generator).to_value();
        for old_name in factory.old_names {
            let mut old = settings.clone();
            if let Value::Object(old) = &mut old {
                let note = format!("The former name of {}.", factory.kind);
                *old = Map::from_iter([
                    ("description".to_owned(), note.into()),
                    ("allOf".to_owned(), json!([std::mem::take(old)])),
                ]);
            }
            types.insert(pattern(old_name), old);
        }
        types.insert(pattern(factory.kind), settings);
    }
    json!({"type": "object", "patternProperties": types, "additionalProperties": false})
}

fn pattern(kind: &str) -> String {
    format!("^{kind}(/[^\\s]+)?$")
}

/// Keys that are not known are errors.
fn close(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if object.contains_key("properties") {
        object
            .entry("additionalProperties")
            .or_insert(Value::Bool(false));
    }
}

/// A reference may stand for everything, nothing for a mapping or a list.
fn loosen(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    // More than one alternative may take a reference, which `oneOf` forbids.
    if let Some(alternatives) = object.remove("oneOf") {
        object.insert("anyOf".to_owned(), alternatives);
    }
    if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
        let fixed = |schema: &Value| schema.get("const").or(schema.get("enum")).is_some();
        if alternatives.iter().any(fixed) {
            alternatives.push(json!({"type": "string", "pattern": REFERENCE}));
        }
    }
    if let Some(words) = object.remove("enum") {
        let alternatives = json!([{"enum": words}, {"pattern": REFERENCE}]);
        object.insert("anyOf".to_owned(), alternatives);
        return;
    }
    if object.contains_key("const") {
        return;
    }
    // Widths of numbers, which no other program knows.
    let width = |format: &Value| {
        let known = ["int", "uint", "float", "double"];
        format
            .as_str()
            .is_some_and(|format| known.iter().any(|known| format.starts_with(known)))
    };
    if object.get("format").is_some_and(width) {
        object.remove("format");
    }
    let mut types: Vec<Value> = match object.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) if one != "null" => vec![one.clone()],
        _ => return,
    };
    let has = |name: &str, types: &[Value]| types.iter().any(|known| known == name);
    if (has("object", &types) || has("array", &types)) && !has("null", &types) {
        types.push("null".into());
    }
    if !has("string", &types) {
        types.push("string".into());
        object.insert("pattern".to_owned(), REFERENCE.into());
    } else if let Some(Value::String(pattern)) = object.get_mut("pattern")
        && pattern != REFERENCE
    {
        *pattern = format!("(?:{pattern})|{REFERENCE}");
    }
    let types = match types.as_slice() {
        [one] => one.clone(),
        _ => Value::Array(types),
    };
    object.insert("type".to_owned(), types);
}

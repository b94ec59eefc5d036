//! What `attributes` and `resource` do to attributes, in the order of their list.

use super::attribute::{self, Literal, string};
use super::pattern::Pattern;
use crate::component::Check;
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// One entry of the list.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ActionSettings {
    /// The attribute.
    key: String,
    /// What is done.
    action: Option<ActionKind>,
    /// The new value.
    value: Option<Literal>,
    /// The attribute whose value is the new one.
    from_attribute: String,
    /// Not supported: what a client sent beside its spans is not kept.
    from_context: String,
    /// The new value when `from_attribute` is not there.
    default_value: Option<Literal>,
    /// `delete`, `hash`: keys that match too; `extract`: named groups become attributes.
    pattern: Option<Pattern>,
    /// `convert`: the new type.
    converted_type: Option<ConvertedType>,
}

/// `action`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ActionKind {
    /// Sets what is not there.
    Insert,
    /// Sets what is there.
    Update,
    /// Sets it.
    Upsert,
    /// Takes it off.
    Delete,
    /// Puts the SHA-256 of the value in its place.
    Hash,
    /// Takes attributes out of a text.
    Extract,
    /// Changes the type.
    Convert,
}

/// `converted_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ConvertedType {
    /// A whole number; fractions are cut off.
    Int,
    /// A number.
    Double,
    /// Text.
    String,
}

/// One action, ready.
#[derive(Debug)]
enum Action {
    Set(ActionKind, String, Source),
    Delete(Keys),
    Hash(Keys),
    Extract(String, Pattern),
    Convert(String, ConvertedType),
}

/// Where a new value comes from.
#[derive(Debug)]
struct Source {
    value: Option<Value>,
    from_attribute: String,
}

/// Which attributes.
#[derive(Debug)]
struct Keys {
    key: String,
    pattern: Option<Pattern>,
}

/// A list of actions, ready.
#[derive(Debug)]
pub(super) struct Actions(Vec<Action>);

impl Actions {
    pub fn new(settings: &[ActionSettings]) -> Result<Self, String> {
        let actions = settings.iter().map(ActionSettings::action);
        let actions: Result<_, _> = actions.collect();
        actions
            .map(Self)
            .map_err(|(key, message)| format!("{key}: {message}"))
    }

    /// Notes what cannot work in the list that stands under `key`.
    pub fn check(settings: &[ActionSettings], key: &str, check: &mut Check<'_>) {
        if settings.is_empty() {
            check.error(key, "at least one action is needed");
        }
        for (index, settings) in settings.iter().enumerate() {
            if let Err((wrong, message)) = settings.action() {
                let place = format!("{key}::{index}");
                check.below(&place).error(wrong, message);
            }
        }
    }

    pub fn apply(&self, attributes: &mut Vec<KeyValue>) {
        for action in &self.0 {
            action.apply(attributes);
        }
    }
}

impl ActionSettings {
    /// The action, or the key that is wrong and why.
    fn action(&self) -> Result<Action, (&'static str, String)> {
        use ActionKind::{Convert, Delete, Extract, Hash, Insert, Update, Upsert};
        let Some(kind) = self.action else {
            let message = "must be set: insert, update, upsert, delete, hash, extract or convert";
            return Err(("action", message.to_owned()));
        };
        let by_pattern = matches!(kind, Delete | Hash) && self.pattern.is_some();
        if self.key.is_empty() && !by_pattern {
            return Err(("key", "must be set".to_owned()));
        }
        self.check_unused(kind)?;
        let keys = || Keys {
            key: self.key.clone(),
            pattern: self.pattern.clone(),
        };
        Ok(match kind {
            Insert | Update | Upsert => Action::Set(kind, self.key.clone(), self.source()?),
            Delete => Action::Delete(keys()),
            Hash => Action::Hash(keys()),
            Extract => Action::Extract(self.key.clone(), self.groups()?),
            Convert => {
                let missing = || {
                    (
                        "converted_type",
                        "must be set: int, double or string".to_owned(),
                    )
                };
                Action::Convert(self.key.clone(), self.converted_type.ok_or_else(missing)?)
            }
        })
    }

    /// A key that the action does not look at is a slip.
    fn check_unused(&self, kind: ActionKind) -> Result<(), (&'static str, String)> {
        use ActionKind::{Convert, Delete, Extract, Hash, Insert, Update, Upsert};
        let sets = matches!(kind, Insert | Update | Upsert);
        let given = [
            ("value", self.value.is_some(), sets),
            ("from_attribute", !self.from_attribute.is_empty(), sets),
            ("default_value", self.default_value.is_some(), sets),
            (
                "pattern",
                self.pattern.is_some(),
                matches!(kind, Delete | Hash | Extract),
            ),
            (
                "converted_type",
                self.converted_type.is_some(),
                kind == Convert,
            ),
        ];
        if !self.from_context.is_empty() {
            let message = "not supported: what a client sent beside its spans is not kept";
            return Err(("from_context", message.to_owned()));
        }
        match given.iter().find(|(_, given, used)| *given && !used) {
            Some((key, ..)) => Err((key, "has no meaning for this action".to_owned())),
            None => Ok(()),
        }
    }

    fn source(&self) -> Result<Source, (&'static str, String)> {
        let from_attribute = self.from_attribute.clone();
        let value = match (&self.value, from_attribute.is_empty()) {
            (Some(_), false) => {
                return Err(("value", "set this or from_attribute, not both".to_owned()));
            }
            (Some(value), true) => Some(value),
            (None, _) => self.default_value.as_ref(),
        };
        if value.is_none() && from_attribute.is_empty() {
            return Err(("value", "this or from_attribute must be set".to_owned()));
        }
        Ok(Source {
            value: value.map(|Literal(value)| value.clone()),
            from_attribute,
        })
    }

    fn groups(&self) -> Result<Pattern, (&'static str, String)> {
        let pattern = self.pattern.clone();
        let pattern = pattern.ok_or_else(|| ("pattern", "must be set".to_owned()))?;
        let mut groups = pattern.capture_names().skip(1).peekable();
        if groups.peek().is_none() || groups.any(|name| name.is_none()) {
            let message = "every group needs a name, as in (?P<name>...), and there must be one";
            return Err(("pattern", message.to_owned()));
        }
        drop(groups);
        Ok(pattern)
    }
}

impl Source {
    fn value(&self, attributes: &[KeyValue]) -> Option<Value> {
        let other = attribute::find(attributes, &self.from_attribute);
        other.cloned().or_else(|| self.value.clone())
    }
}

impl Keys {
    fn mean(&self, key: &str) -> bool {
        let pattern = self.pattern.as_ref();
        key == self.key || pattern.is_some_and(|pattern| pattern.is_match(key))
    }
}

impl Action {
    fn apply(&self, attributes: &mut Vec<KeyValue>) {
        match self {
            Self::Set(kind, key, source) => {
                let there = attributes.iter().any(|attribute| attribute.key == *key);
                let wanted = match kind {
                    ActionKind::Insert => !there,
                    ActionKind::Update => there,
                    _ => true,
                };
                if let (true, Some(value)) = (wanted, source.value(attributes)) {
                    attribute::set(attributes, key, value);
                }
            }
            Self::Delete(keys) => attributes.retain(|attribute| !keys.mean(&attribute.key)),
            Self::Hash(keys) => {
                for attribute in attributes {
                    let value = attribute.value.as_mut();
                    if let (true, Some(value)) = (keys.mean(&attribute.key), value) {
                        value.value = Some(string(hashed(value.value.as_ref())));
                    }
                }
            }
            Self::Extract(key, pattern) => extract(attributes, key, pattern),
            Self::Convert(key, wanted) => {
                let value = attribute::find(attributes, key);
                if let Some(value) = value.and_then(|value| converted(value, *wanted)) {
                    attribute::set(attributes, key, value);
                }
            }
        }
    }
}

/// The SHA-256 of the value's bytes as lower-case digits, as the Collector computes it: numbers
/// in little endian, nothing for lists, maps and bytes.
fn hashed(value: Option<&Value>) -> String {
    let bytes = match value {
        Some(Value::StringValue(text)) => text.as_bytes().to_vec(),
        Some(Value::BoolValue(truth)) => vec![u8::from(*truth)],
        Some(Value::IntValue(number)) => number.to_le_bytes().to_vec(),
        Some(Value::DoubleValue(number)) => number.to_le_bytes().to_vec(),
        _ => Vec::new(),
    };
    if bytes.is_empty() {
        return String::new();
    }
    attribute::hex(&Sha256::digest(bytes))
}

fn extract(attributes: &mut Vec<KeyValue>, key: &str, pattern: &Pattern) {
    let Some(Value::StringValue(text)) = attribute::find(attributes, key) else {
        return;
    };
    let text = text.clone();
    let Some(found) = pattern.captures(&text) else {
        return;
    };
    for name in pattern.capture_names().flatten() {
        let part = found.name(name).map_or("", |part| part.as_str());
        attribute::set(attributes, name, string(part));
    }
}

/// None: it cannot be converted and stays as it is.
fn converted(value: &Value, wanted: ConvertedType) -> Option<Value> {
    match (wanted, value) {
        (ConvertedType::String, value) => Some(string(attribute::text(value))),
        (ConvertedType::Int, Value::StringValue(text)) => text.parse().ok().map(Value::IntValue),
        #[expect(clippy::cast_possible_truncation, reason = "fractions are cut off")]
        (ConvertedType::Int, Value::DoubleValue(number)) => Some(Value::IntValue(*number as i64)),
        (ConvertedType::Int, Value::BoolValue(truth)) => Some(Value::IntValue((*truth).into())),
        (ConvertedType::Double, Value::StringValue(text)) => {
            text.parse().ok().map(Value::DoubleValue)
        }
        #[expect(clippy::cast_precision_loss, reason = "what a double is asked for")]
        (ConvertedType::Double, Value::IntValue(number)) => {
            Some(Value::DoubleValue(*number as f64))
        }
        (ConvertedType::Double, Value::BoolValue(truth)) => {
            Some(Value::DoubleValue(u8::from(*truth).into()))
        }
        _ => None,
    }
}

//! What `select` may look like, for the schema of a configuration: the same forms that
//! `Deserialize` takes, which derives cannot see.
#![expect(dead_code, reason = "types that only the schema is made from")]

use super::{Action, Rule};
use schemars::JsonSchema;

/// Rules in order, the first that matches decides; or a mapping of `rules` and `default`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Select")]
pub enum SelectSchema {
    /// In order.
    Rules(Vec<Rule>),
    /// Rules, and what happens when none matches.
    Full {
        /// In order.
        rules: Option<Vec<Rule>>,
        /// For processes that no rule matches.
        default: Option<Action>,
    },
}

/// One value or a list.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

/// `80`, `"8000-8999"`, `"80,443"`, or a list of them.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Ports")]
pub(super) enum PortsSchema {
    Number(u16),
    Text(String),
    List(Vec<PortsSchema>),
}

//! Conditions on spans: the part of OTTL (contrib `pkg/ottl/LANGUAGE.md`) that asks.
//!
//! text -> [`lexer`] words -> [`parser`] tree of [`Test`]s -> `holds` for a [`Subject`].

mod eval;
mod function;
mod lexer;
mod parser;
mod path;
#[cfg(test)]
mod tests;
mod value;

use super::walk::Origin;
use crate::proto::trace::v1::Span;
use crate::proto::trace::v1::span::Event;
use eval::Test;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;

/// What a condition is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub origin: Origin<'a>,
    pub span: &'a Span,
    /// Present where the condition is about one event of the span.
    pub event: Option<&'a Event>,
}

/// Why a condition could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub(super) struct Unreadable {
    /// Where, counted in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// Why a condition has no answer: a function got what it cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswerable(pub Cow<'static, str>);

/// What a path without a prefix belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Nothing: every path has to say it.
    Inferred,
    /// The span.
    Span,
    /// An event of it.
    Event,
}

/// A condition, read.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    text: String,
    test: Test,
    about_event: bool,
}

impl Condition {
    pub fn parse(text: &str, context: Context) -> Result<Self, Unreadable> {
        let (test, mentions_event) = parser::parse(text, context)?;
        Ok(Self {
            text: text.to_owned(),
            test,
            about_event: mentions_event || context == Context::Event,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about single events of a span rather than the span.
    pub fn is_about_event(&self) -> bool {
        self.about_event
    }

    /// Whether it holds.
    pub fn holds(&self, subject: Subject<'_>) -> Result<bool, Unanswerable> {
        self.test.holds(subject)
    }
}

macro_rules! condition_setting {
    ($(#[$doc:meta])* $name:ident, $context:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, JsonSchema)]
        #[schemars(transparent)]
        pub(super) struct $name(#[schemars(with = "String")] pub Condition);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let condition = Condition::parse(&text, $context);
                condition
                    .map(Self)
                    .map_err(|error| D::Error::custom(format!("{error}, in: {}", text.trim())))
            }
        }
    };
}

condition_setting!(
    /// A condition whose paths begin with `resource`, `scope`, `span` or `spanevent`.
    TraceCondition,
    Context::Inferred
);
condition_setting!(
    /// A condition on a span: `attributes["x"]` is the span's.
    SpanCondition,
    Context::Span
);
condition_setting!(
    /// A condition on an event of a span: `attributes["x"]` is the event's.
    EventCondition,
    Context::Event
);

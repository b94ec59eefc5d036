//! Changes attributes of spans.

use super::action::{ActionSettings, Actions};
use super::matching::{Choice, MatchSettings};
use super::walk::retain_spans;
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Check, Context, Processor, ProcessorSettings, Settings};
use schemars::JsonSchema;
use serde::Deserialize;

/// `processors::attributes`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AttributesSettings {
    /// What is done, in this order.
    actions: Vec<ActionSettings>,
    /// Only to these spans.
    include: Option<MatchSettings>,
    /// Not to these spans.
    exclude: Option<MatchSettings>,
}

impl Settings for AttributesSettings {
    fn check(&self, check: &mut Check<'_>) {
        Actions::check(&self.actions, "actions", check);
        for (key, choice) in [("include", &self.include), ("exclude", &self.exclude)] {
            if let Some(choice) = choice {
                choice.check(&mut check.below(key));
            }
        }
    }
}

impl ProcessorSettings for AttributesSettings {
    fn build(&self, _: Context) -> Result<Box<dyn Processor>, BoxError> {
        Ok(Box::new(Attributes {
            actions: Actions::new(&self.actions)?,
            choice: Choice::new(self.include.as_ref(), self.exclude.as_ref())?,
        }))
    }
}

struct Attributes {
    actions: Actions,
    choice: Choice,
}

impl Processor for Attributes {
    fn process(&mut self, mut batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        retain_spans(&mut batch, |origin, span| {
            if self.choice.means(origin, span) {
                self.actions.apply(&mut span.attributes);
            }
            true
        });
        out.push(batch);
    }
}

//! Changes attributes of resources.

use super::action::{ActionSettings, Actions};
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Check, Context, Processor, ProcessorSettings, Settings};
use schemars::JsonSchema;
use serde::Deserialize;

/// `processors::resource`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourceSettings {
    /// What is done, in this order.
    attributes: Vec<ActionSettings>,
}

impl Settings for ResourceSettings {
    fn check(&self, check: &mut Check<'_>) {
        Actions::check(&self.attributes, "attributes", check);
    }
}

impl ProcessorSettings for ResourceSettings {
    fn build(&self, _: Context) -> Result<Box<dyn Processor>, BoxError> {
        let actions = Actions::new(&self.attributes)?;
        Ok(Box::new(Resource { actions }))
    }
}

struct Resource {
    actions: Actions,
}

impl Processor for Resource {
    fn process(&mut self, mut batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        for resource_spans in batch.resource_spans_mut() {
            let resource = resource_spans.resource.get_or_insert_default();
            self.actions.apply(&mut resource.attributes);
        }
        out.push(batch);
    }
}

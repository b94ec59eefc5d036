//! Takes everything and keeps nothing: for what a pipeline does before its exporters.

use crate::batch::Batch;
use crate::component::{BoxError, Context, Exporter, ExporterSettings, Settings};
use crate::receipt::NotTaken;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::Instant;

/// Settings of the `nop` exporter: there are none.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NopSettings {}

impl Settings for NopSettings {}

impl ExporterSettings for NopSettings {
    fn build(&self, _: Context) -> Result<Box<dyn Exporter>, BoxError> {
        Ok(Box::new(Nop))
    }
}

struct Nop;

#[async_trait]
impl Exporter for Nop {
    async fn start(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn consume(&self, _: Arc<Batch>) -> Result<(), NotTaken> {
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {}
}

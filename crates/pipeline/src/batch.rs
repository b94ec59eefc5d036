//! The one type that travels between components.

use crate::receipt::{NotTaken, Receipt};
use crate::wire::{self, Malformed};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use prost::encoding::message;
use span_model::Opening;
use std::borrow::Cow;

/// Spans under way from a receiver through processors to exporters.
///
/// Spans are OTLP messages from the moment they leave the collector's `spans`
/// room, so that what came in over OTLP goes out as it came, and the linker
/// treats both alike. What came in encoded stays so until somebody looks:
/// where nobody does, the bytes pass through, with fields that we do not know.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Empty while the batch is encoded.
    resource_spans: Vec<ResourceSpans>,
    encoded: Option<Encoded>,
    /// Requests that have begun, for a linker in the same process; exporters ignore them.
    pub openings: Vec<Opening>,
    receipt: Option<Receipt>,
}

/// A request that [`wire`] has found sound.
#[derive(Clone, Debug)]
struct Encoded {
    body: Bytes,
    spans: usize,
}

impl Batch {
    /// Finished spans, grouped by resource and scope.
    pub fn new(resource_spans: Vec<ResourceSpans>) -> Self {
        Self {
            resource_spans,
            ..Self::default()
        }
    }

    /// An encoded `ExportTraceServiceRequest`, which is looked through but not decoded.
    pub fn encoded(body: Bytes) -> Result<Self, Malformed> {
        let spans = wire::count_spans(&body)?;
        Ok(Self {
            encoded: Some(Encoded { body, spans }),
            ..Self::default()
        })
    }

    /// Number of finished spans.
    pub fn span_count(&self) -> usize {
        if let Some(encoded) = &self.encoded {
            return encoded.spans;
        }
        let resources = self.resource_spans.iter();
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }

    /// Neither spans nor openings.
    pub fn is_empty(&self) -> bool {
        self.openings.is_empty() && self.span_count() == 0
    }

    /// The spans to look at; decoded for this call if they are not yet.
    pub fn resource_spans(&self) -> Cow<'_, [ResourceSpans]> {
        match &self.encoded {
            None => Cow::Borrowed(&self.resource_spans),
            Some(encoded) => Cow::Owned(decode(encoded.body.clone())),
        }
    }

    /// The spans to change; decoded for good if they are not yet.
    pub fn resource_spans_mut(&mut self) -> &mut Vec<ResourceSpans> {
        if let Some(encoded) = self.encoded.take() {
            self.resource_spans = decode(encoded.body);
        }
        &mut self.resource_spans
    }

    /// The spans, which the batch has no longer.
    pub fn take_resource_spans(&mut self) -> Vec<ResourceSpans> {
        std::mem::take(self.resource_spans_mut())
    }

    /// An `ExportTraceServiceRequest` with the spans: the bytes that came in, if nobody
    /// has asked for more.
    pub fn encode(&self) -> Bytes {
        if let Some(encoded) = &self.encoded {
            return encoded.body.clone();
        }
        let resources = self.resource_spans.iter();
        let lengths = resources.map(|spans| message::encoded_len(1, spans));
        let mut body = Vec::with_capacity(lengths.sum());
        for spans in &self.resource_spans {
            message::encode(1, spans, &mut body);
        }
        Bytes::from(body)
    }

    /// Gives the batch a receipt; its receiver waits for the outcome.
    pub fn set_receipt(&mut self, receipt: Receipt) {
        self.receipt = Some(receipt);
    }

    /// The receipt, for whoever decides what becomes of the batch. A processor that keeps the
    /// spans need do nothing: a receipt that is dropped with its batch says that they are taken.
    pub fn take_receipt(&mut self) -> Option<Receipt> {
        self.receipt.take()
    }

    /// Leaves the spans with whoever sent them. False: nobody waits for an answer, so that
    /// the caller has to count them as lost.
    pub fn refuse(mut self, why: NotTaken) -> bool {
        match self.receipt.take() {
            Some(receipt) => {
                receipt.refuse(why);
                true
            }
            None => false,
        }
    }
}

fn decode(body: Bytes) -> Vec<ResourceSpans> {
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => request.resource_spans,
        Err(error) => {
            // What the look through lets pass decodes: `tests/all/wire.rs` tries to break that.
            tracing::error!(%error, "a request that was found sound does not decode, its spans are lost");
            Vec::new()
        }
    }
}

//! The one place where processors look into batches.

use crate::batch::Batch;
use crate::proto::common::v1::{InstrumentationScope, KeyValue};
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// Where a span comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// Attributes of the resource.
    pub resource: &'a [KeyValue],
    /// The instrumentation scope, empty if there is none.
    pub scope: &'a InstrumentationScope,
}

/// Takes out the spans for which `keep` says no, and what they leave empty. Says how many.
pub(super) fn retain_spans(
    batch: &mut Batch,
    mut keep: impl FnMut(Origin<'_>, &mut Span) -> bool,
) -> usize {
    let no_scope = InstrumentationScope::default();
    let mut dropped = 0;
    batch.resource_spans_mut().retain_mut(|resource_spans| {
        let resource = resource_spans.resource.as_ref();
        let resource = resource.map_or(&[][..], |resource| &resource.attributes);
        resource_spans.scope_spans.retain_mut(|scope_spans| {
            let scope = scope_spans.scope.as_ref().unwrap_or(&no_scope);
            let origin = Origin { resource, scope };
            let before = scope_spans.spans.len();
            scope_spans.spans.retain_mut(|span| keep(origin, span));
            dropped += before - scope_spans.spans.len();
            !scope_spans.spans.is_empty()
        });
        !resource_spans.scope_spans.is_empty()
    });
    dropped
}

/// Takes the first so many spans off, each with a copy of its resource and scope.
pub(super) fn split_off_front(
    resource_spans: &mut Vec<ResourceSpans>,
    spans: usize,
) -> Vec<ResourceSpans> {
    let mut front = Vec::new();
    let mut wanted = spans;
    resource_spans.retain_mut(|resource| {
        if wanted == 0 {
            return true;
        }
        let mut scopes = Vec::new();
        resource.scope_spans.retain_mut(|scope| {
            let taken = wanted.min(scope.spans.len());
            if taken > 0 {
                wanted -= taken;
                let rest = scope.spans.split_off(taken);
                scopes.push(ScopeSpans {
                    scope: scope.scope.clone(),
                    spans: std::mem::replace(&mut scope.spans, rest),
                    schema_url: scope.schema_url.clone(),
                });
            }
            !scope.spans.is_empty()
        });
        front.push(ResourceSpans {
            resource: resource.resource.clone(),
            scope_spans: scopes,
            schema_url: resource.schema_url.clone(),
        });
        !resource.scope_spans.is_empty()
    });
    front
}

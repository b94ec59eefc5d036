//! A batch as requests of a limited size; pure.

use super::Load;
use super::settings::{BatchSettings, BatchSizer};
use crate::batch::Batch;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// What a length-delimited field may have in front of its content: a tag and a length.
const FIELD_BYTES: usize = 6;

/// The batch as one request, or as several that are no larger than `max_size` each. A span that is
/// larger by itself is a request of its own.
pub fn loads(batch: &Batch, settings: Option<&BatchSettings>) -> Vec<Load> {
    let whole = Load {
        spans: batch.span_count(),
        body: batch.encode(),
    };
    let Some(settings) = settings.filter(|settings| settings.max_size > 0) else {
        return vec![whole];
    };
    if settings.weigh(whole.spans, whole.body.len()) <= settings.max_size {
        return vec![whole];
    }
    let mut parts = Parts {
        settings,
        done: Vec::new(),
        open: Vec::new(),
        spans: 0,
        weight: 0,
    };
    for resource in batch.resource_spans().iter() {
        parts.take(resource);
    }
    parts.cut();
    parts.done
}

struct Parts<'a> {
    settings: &'a BatchSettings,
    done: Vec<Load>,
    /// The request that is being filled.
    open: Vec<ResourceSpans>,
    spans: usize,
    /// Of the open request, as the sizer counts. In bytes it errs high, by a few a span.
    weight: usize,
}

impl Parts<'_> {
    fn take(&mut self, resource: &ResourceSpans) {
        let resource_head = ResourceSpans {
            resource: resource.resource.clone(),
            scope_spans: Vec::new(),
            schema_url: resource.schema_url.clone(),
        };
        let mut resource_open = false;
        for scope in &resource.scope_spans {
            let scope_head = ScopeSpans {
                scope: scope.scope.clone(),
                spans: Vec::new(),
                schema_url: scope.schema_url.clone(),
            };
            let heads = self.weigh(&resource_head) + self.weigh(&scope_head);
            let mut scope_open = false;
            for span in &scope.spans {
                let weight = self.weigh(span) + self.settings.weigh(1, 0);
                let with_heads = if scope_open { weight } else { weight + heads };
                if self.spans > 0 && self.weight + with_heads > self.settings.max_size {
                    self.cut();
                    (resource_open, scope_open) = (false, false);
                }
                if !resource_open {
                    self.open.push(resource_head.clone());
                }
                let into = self.open.last_mut();
                if !scope_open && let Some(resource) = into {
                    resource.scope_spans.push(scope_head.clone());
                    self.weight += heads;
                }
                (resource_open, scope_open) = (true, true);
                self.put(span.clone(), weight);
            }
        }
    }

    fn put(&mut self, span: Span, weight: usize) {
        let resource = self.open.last_mut();
        if let Some(scope) = resource.and_then(|resource| resource.scope_spans.last_mut()) {
            scope.spans.push(span);
            self.spans += 1;
            self.weight += weight;
        }
    }

    fn weigh(&self, message: &impl Message) -> usize {
        match self.settings.sizer {
            BatchSizer::Items => 0,
            BatchSizer::Bytes => message.encoded_len() + FIELD_BYTES,
        }
    }

    fn cut(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        self.weight = 0;
        if spans > 0 {
            let body = Batch::new(std::mem::take(&mut self.open)).encode();
            self.done.push(Load { body, spans });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

    /// Two resources with two scopes each, the spans numbered through.
    fn batch(spans_per_scope: u32) -> Batch {
        let mut number = 0;
        let mut scope = |schema: &str| ScopeSpans {
            schema_url: schema.to_owned(),
            spans: (0..spans_per_scope)
                .map(|_| {
                    number += 1;
                    Span {
                        name: format!("{number:04}"),
                        ..Span::default()
                    }
                })
                .collect(),
            ..ScopeSpans::default()
        };
        let resource = |scope_spans| ResourceSpans {
            schema_url: "r".repeat(20),
            scope_spans,
            ..ResourceSpans::default()
        };
        let first = vec![scope("a"), scope("b")];
        let second = vec![scope("c"), scope("d")];
        Batch::new(vec![resource(first), resource(second)])
    }

    fn split(batch: &Batch, sizer: BatchSizer, max_size: usize) -> Vec<Load> {
        let settings = BatchSettings {
            sizer,
            max_size,
            min_size: 1,
            ..BatchSettings::default()
        };
        loads(batch, Some(&settings))
    }

    /// Every span with its scope, in order.
    fn flat(loads: &[Load]) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for load in loads {
            let request = ExportTraceServiceRequest::decode(load.body.clone()).unwrap();
            let before = out.len();
            for resource in request.resource_spans {
                assert_eq!(resource.schema_url.len(), 20);
                for scope in resource.scope_spans {
                    assert!(!scope.spans.is_empty());
                    let spans = scope.spans.into_iter();
                    out.extend(spans.map(|span| (scope.schema_url.clone(), span.name)));
                }
            }
            assert_eq!(out.len() - before, load.spans);
        }
        out
    }

    #[test]
    fn requests_are_no_larger_than_asked_for_and_lose_nothing() {
        let batch = batch(7);
        let whole = flat(&loads(&batch, None));
        assert_eq!(whole.len(), 28);
        for max_size in [1, 2, 3, 7, 10, 27, 28, 100] {
            let parts = split(&batch, BatchSizer::Items, max_size);
            assert_eq!(flat(&parts), whole, "{max_size} spans");
            assert_eq!(parts.len(), 28_usize.div_ceil(max_size), "{max_size} spans");
        }
        for max_size in [1, 50, 100, 150, 400, 1000] {
            let parts = split(&batch, BatchSizer::Bytes, max_size);
            assert_eq!(flat(&parts), whole, "{max_size} bytes");
            let largest = parts.iter().filter(|part| part.spans > 1);
            let largest = largest.map(|part| part.body.len()).max();
            assert!(
                largest.is_none_or(|largest| largest <= max_size),
                "{largest:?}, {max_size}"
            );
        }
        assert!(split(&batch, BatchSizer::Bytes, 150).len() < 10);
    }
}

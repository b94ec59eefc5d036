//! The spans of one trace, while it waits.

use crate::clock::Monotonic;
use crate::processors::condition::Subject;
use crate::processors::walk::Origin;
use crate::proto::common::v1::InstrumentationScope;
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;

/// The resource and scope that spans came with; shared by all of them.
#[derive(Debug, Default)]
pub(super) struct Home {
    resource: Option<Resource>,
    resource_schema: String,
    scope: InstrumentationScope,
    has_scope: bool,
    scope_schema: String,
}

impl Home {
    pub fn origin(&self) -> Origin<'_> {
        let resource = self.resource.as_ref();
        Origin {
            resource: resource.map_or(&[], |resource| &resource.attributes),
            scope: &self.scope,
        }
    }

    fn scope_spans(&self, spans: Vec<Span>) -> ScopeSpans {
        ScopeSpans {
            scope: self.has_scope.then(|| self.scope.clone()),
            spans,
            schema_url: self.scope_schema.clone(),
        }
    }
}

/// A span and where it is from.
#[derive(Debug)]
pub(super) struct Piece {
    pub home: Arc<Home>,
    pub span: Span,
}

/// Takes spans apart, in their order.
pub(super) fn pieces(resource_spans: Vec<ResourceSpans>) -> impl Iterator<Item = Piece> {
    resource_spans.into_iter().flat_map(|resource_spans| {
        let ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        } = resource_spans;
        scope_spans.into_iter().flat_map(move |scope_spans| {
            let home = Arc::new(Home {
                resource: resource.clone(),
                resource_schema: schema_url.clone(),
                has_scope: scope_spans.scope.is_some(),
                scope: scope_spans.scope.unwrap_or_default(),
                scope_schema: scope_spans.schema_url,
            });
            let spans = scope_spans.spans.into_iter();
            spans.map(move |span| Piece {
                home: Arc::clone(&home),
                span,
            })
        })
    })
}

/// Puts spans together again: those of one home stay together.
pub(super) fn assembled(pieces: impl IntoIterator<Item = Piece>) -> Vec<ResourceSpans> {
    let mut groups: Vec<(Arc<Home>, Vec<Span>)> = Vec::new();
    let mut index: HashMap<*const Home, usize> = HashMap::new();
    for Piece { home, span } in pieces {
        let slot = *index.entry(Arc::as_ptr(&home)).or_insert_with(|| {
            groups.push((Arc::clone(&home), Vec::new()));
            groups.len() - 1
        });
        if let Some((_, spans)) = groups.get_mut(slot) {
            spans.push(span);
        }
    }
    let groups = groups.into_iter();
    let made = groups.map(|(home, spans)| ResourceSpans {
        resource: home.resource.clone(),
        scope_spans: vec![home.scope_spans(spans)],
        schema_url: home.resource_schema.clone(),
    });
    made.collect()
}

/// A trace that waits for its decision.
#[derive(Debug)]
pub(super) struct Trace {
    id: Vec<u8>,
    /// When its first span came.
    pub since: Monotonic,
    pieces: Vec<Piece>,
}

impl Trace {
    pub fn new(id: Vec<u8>, since: Monotonic) -> Self {
        Self {
            id,
            since,
            pieces: Vec::new(),
        }
    }

    pub fn add(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    pub fn id(&self) -> &[u8] {
        &self.id
    }

    pub fn span_count(&self) -> usize {
        self.pieces.len()
    }

    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.pieces.iter().map(|piece| &piece.span)
    }

    /// Where its spans are from; the same more than once.
    pub fn homes(&self) -> impl Iterator<Item = &Home> {
        self.pieces.iter().map(|piece| piece.home.as_ref())
    }

    /// Every span, and every event of it.
    pub fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.pieces.iter().flat_map(|piece| {
            let subject = Subject {
                origin: piece.home.origin(),
                span: &piece.span,
                event: None,
            };
            let events = piece.span.events.iter().map(move |event| Subject {
                event: Some(event),
                ..subject
            });
            std::iter::once(subject).chain(events)
        })
    }

    /// From the first start to the last end.
    pub fn duration_ms(&self) -> u64 {
        let start = self.spans().map(|span| span.start_time_unix_nano).min();
        let end = self.spans().map(|span| span.end_time_unix_nano).max();
        let nanos = end.unwrap_or(0).saturating_sub(start.unwrap_or(0));
        nanos / 1_000_000
    }

    /// Bytes of its spans, without what they share.
    pub fn encoded_len(&self) -> u64 {
        self.spans().map(|span| span.encoded_len() as u64).sum()
    }

    pub fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }
}

//! A finished request as a span, by the semantic conventions v1.44.0.
//!
//! What a protocol says stands first; what only the socket knows fills the rest.

use super::counts::Unpaired;
use super::exchange::Finished;
use crate::protocols::{Audience, Message};
use span_model::{Attribute, LinkFacts, Resource, Span, SpanId, SpanKind, Status, Value, semconv};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

/// `error.type` of a request whose connection closed before the response.
const CONNECTION_CLOSED: &str = "connection_closed";

/// What the span's surroundings know.
pub(super) struct Context {
    pub(super) span_id: SpanId,
    pub(super) kind: SpanKind,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) start_unix_ns: u64,
    pub(super) end_unix_ns: u64,
    pub(super) resource: Arc<Resource>,
    pub(super) link: LinkFacts,
}

/// Builds the span of a finished request.
pub(super) fn build(finished: Finished, context: Context) -> Span {
    let Finished {
        request,
        response,
        unpaired,
        ..
    } = finished;
    let error = error_type(
        context.kind,
        response.as_ref().map(|r| &r.message),
        unpaired,
    );
    let mut request = request.message;
    let name = std::mem::take(&mut request.span_name);
    let mut attributes = Vec::with_capacity(16);
    take_attributes(&mut attributes, request, context.kind);
    if let Some(response) = response {
        take_attributes(&mut attributes, response.message, context.kind);
    }
    add_addresses(&mut attributes, &context);
    if let Some(error) = &error {
        put(
            &mut attributes,
            semconv::ERROR_TYPE,
            Value::Str(error.clone()),
        );
    }
    if let Some(reason) = unpaired.filter(|reason| *reason != Unpaired::Closed) {
        put(
            &mut attributes,
            semconv::DEEPTRACE_INCOMPLETE,
            reason.as_str().into(),
        );
    }
    Span {
        trace_id: None,
        span_id: context.span_id,
        parent_span_id: None,
        kind: context.kind,
        name,
        start_unix_ns: context.start_unix_ns,
        end_unix_ns: context.end_unix_ns.max(context.start_unix_ns),
        status: error.map_or(Status::Unset, |_| Status::Error(Cow::Borrowed(""))),
        attributes,
        resource: context.resource,
        link: context.link,
    }
}

fn error_type(
    kind: SpanKind,
    response: Option<&Message>,
    unpaired: Option<Unpaired>,
) -> Option<Cow<'static, str>> {
    if unpaired == Some(Unpaired::Closed) {
        return Some(Cow::Borrowed(CONNECTION_CLOSED));
    }
    match kind {
        SpanKind::Client => response?.client_error.clone(),
        SpanKind::Server => response?.server_error.clone(),
    }
}

/// Later attributes do not replace earlier ones of the same name.
fn take_attributes(into: &mut Vec<Attribute>, message: Message, kind: SpanKind) {
    for (audience, (key, value)) in message.attributes {
        let wanted = match audience {
            Audience::Both => true,
            Audience::Client => kind == SpanKind::Client,
            Audience::Server => kind == SpanKind::Server,
        };
        if wanted && !into.iter().any(|(known, _)| *known == key) {
            into.push((key, value));
        }
    }
}

fn add_addresses(attributes: &mut Vec<Attribute>, context: &Context) {
    let (server, client) = match context.kind {
        SpanKind::Client => (context.remote, None),
        SpanKind::Server => (context.local, context.remote),
    };
    if let Some(server) = server {
        if !has(attributes, semconv::SERVER_ADDRESS) {
            put(
                attributes,
                semconv::SERVER_ADDRESS,
                server.ip().to_string().into(),
            );
        }
        if !has(attributes, semconv::SERVER_PORT) {
            put(attributes, semconv::SERVER_PORT, server.port().into());
        }
    }
    if let Some(client) = client.filter(|_| !has(attributes, semconv::CLIENT_ADDRESS)) {
        put(
            attributes,
            semconv::CLIENT_ADDRESS,
            client.ip().to_string().into(),
        );
    }
    if let Some(peer) = context.remote {
        put(
            attributes,
            semconv::NETWORK_PEER_ADDRESS,
            peer.ip().to_string().into(),
        );
        put(attributes, semconv::NETWORK_PEER_PORT, peer.port().into());
    }
}

fn has(attributes: &[Attribute], key: &str) -> bool {
    attributes.iter().any(|(known, _)| known == key)
}

fn put(attributes: &mut Vec<Attribute>, key: &'static str, value: Value) {
    attributes.push((Cow::Borrowed(key), value));
}

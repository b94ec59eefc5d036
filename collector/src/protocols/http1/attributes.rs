//! Span attributes of HTTP by the semantic conventions v1.44 (docs/http/http-spans.md).
//!
//! Of the headers only those named here leave, and no secret in them.

use super::head::RequestLine;
use super::parser::closes;
use super::url::{self, Target, host_and_port};
use crate::protocols::context::ContextHeaders;
use crate::protocols::{Audience, Message, MessageKind, words};
use span_model::semconv as names;
use std::borrow::Cow;

/// Methods that are span names; others are `_OTHER`. The comparison is case-sensitive.
pub(super) const KNOWN_METHODS: &[&str] = &[
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// The request's headers that matter, the first of each name.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    host: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    forwarded: Option<Cow<'a, str>>,
    forwarded_for: Option<Cow<'a, str>>,
    forwarded_host: Option<Cow<'a, str>>,
    forwarded_proto: Option<Cow<'a, str>>,
    close: bool,
    keep_alive: bool,
    context: ContextHeaders,
}

impl<'a> Headers<'a> {
    /// Takes one header in.
    pub(super) fn offer(&mut self, name: &str, value: Cow<'a, str>) {
        self.context.offer(name, &value);
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let slot = if is("host") {
            &mut self.host
        } else if is("user-agent") {
            &mut self.user_agent
        } else if is("forwarded") {
            &mut self.forwarded
        } else if is("x-forwarded-for") {
            &mut self.forwarded_for
        } else if is("x-forwarded-host") {
            &mut self.forwarded_host
        } else if is("x-forwarded-proto") {
            &mut self.forwarded_proto
        } else {
            if is("connection") {
                let mut options = value.split(',').map(str::trim);
                self.close |= options
                    .clone()
                    .any(|option| option.eq_ignore_ascii_case("close"));
                self.keep_alive |= options.any(|option| option.eq_ignore_ascii_case("keep-alive"));
            }
            return;
        };
        slot.get_or_insert(value);
    }
}

/// The message of a request head.
pub(super) fn request(line: &RequestLine<'_>, headers: Headers<'_>) -> Message {
    let text = String::from_utf8_lossy(line.target);
    let target = Target::read(line.method, &text);
    let known = KNOWN_METHODS
        .iter()
        .find(|known| **known == line.method)
        .copied();
    let mut message = Message {
        operation: known.map_or_else(|| line.method.to_owned().into(), Cow::Borrowed),
        span_name: known.unwrap_or("HTTP").into(),
        last: closes(line.version, headers.close, headers.keep_alive),
        ..Message::default()
    };
    message.put(names::HTTP_REQUEST_METHOD, known.unwrap_or("_OTHER"));
    if known.is_none() {
        message.put(names::HTTP_REQUEST_METHOD_ORIGINAL, line.method.to_owned());
    }
    message.put(names::NETWORK_PROTOCOL_VERSION, line.version.as_str());
    client_side(&mut message, &target, &headers);
    server_side(&mut message, &target, &headers);
    (message.context, message.tokens) = headers.context.finish();
    message.tokens.extend(words::tokens(line.target));
    message
}

/// The message of a response head.
pub(super) fn response(status: u16, kind: MessageKind) -> Message {
    let mut message = Message {
        kind,
        ..Message::default()
    };
    message.put(names::HTTP_RESPONSE_STATUS_CODE, status);
    if kind == MessageKind::Response && (400..600).contains(&status) {
        message.client_error = Some(status.to_string().into());
        message.server_error = message.client_error.clone().filter(|_| status >= 500);
    }
    message
}

/// Where the request goes. Without a Host and an absolute target no URL can be told,
/// and without a port in them the socket's port is the right one: both stay out.
fn client_side(message: &mut Message, target: &Target<'_>, headers: &Headers<'_>) {
    let authority = target.authority.or(headers.host.as_deref());
    let Some((authority, (host, port))) =
        authority.and_then(|authority| Some((authority, host_and_port(authority)?)))
    else {
        return;
    };
    let query = target.query.map(url::redacted_query);
    let full = format!(
        "{}://{}{}{}{}",
        target.scheme.unwrap_or("http"),
        url::redacted_authority(authority),
        if target.path == "*" { "" } else { target.path },
        if query.is_some() { "?" } else { "" },
        query.unwrap_or_default(),
    );
    message.put_for(Audience::Client, names::URL_FULL, url::bounded(full));
    message.put_for(Audience::Client, names::SERVER_ADDRESS, host.to_owned());
    // Through a proxy the socket's port is the proxy's.
    let through_proxy = target.scheme.map(default_port);
    if let Some(port) = port.or(through_proxy) {
        message.put_for(Audience::Client, names::SERVER_PORT, port);
    }
}

/// What the server was asked, as seen by whoever asked first.
fn server_side(message: &mut Message, target: &Target<'_>, headers: &Headers<'_>) {
    let forwarded = |key| forwarded_field(headers.forwarded.as_deref(), key);
    if target.authority.is_none() || target.scheme.is_some() {
        let path = if target.path.is_empty() {
            "/"
        } else {
            target.path
        };
        message.put_for(
            Audience::Server,
            names::URL_PATH,
            url::bounded(path.to_owned()),
        );
    }
    if let Some(query) = target.query.filter(|query| !query.is_empty()) {
        let query = url::bounded(url::redacted_query(query).into_owned());
        message.put_for(Audience::Server, names::URL_QUERY, query);
    }
    let scheme = forwarded("proto")
        .or_else(|| headers.forwarded_proto.as_deref().and_then(first_of_list))
        .or(target.scheme);
    let https = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    message.put_for(
        Audience::Server,
        names::URL_SCHEME,
        if https { "https" } else { "http" },
    );

    let asked_host = forwarded("host")
        .or_else(|| headers.forwarded_host.as_deref().and_then(first_of_list))
        .or(target.authority)
        .or(headers.host.as_deref());
    if let Some((host, port)) = asked_host.and_then(host_and_port) {
        message.put_for(Audience::Server, names::SERVER_ADDRESS, host.to_owned());
        if let Some(port) = port {
            message.put_for(Audience::Server, names::SERVER_PORT, port);
        }
    }
    let client = forwarded("for").and_then(node_address).or_else(|| {
        let first = headers.forwarded_for.as_deref().and_then(first_of_list);
        first.and_then(node_address)
    });
    if let Some(client) = client {
        message.put_for(Audience::Server, names::CLIENT_ADDRESS, client.to_owned());
    }
    if let Some(agent) = headers
        .user_agent
        .as_deref()
        .filter(|agent| !agent.is_empty())
    {
        let agent = url::bounded(agent.to_owned());
        message.put_for(Audience::Server, names::USER_AGENT_ORIGINAL, agent);
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    }
}

/// One field of the first element of `Forwarded` (RFC 7239): what the proxy nearest
/// to the client wrote. Commas inside quotes are not expected there.
fn forwarded_field<'a>(forwarded: Option<&'a str>, key: &str) -> Option<&'a str> {
    forwarded?
        .split(',')
        .next()?
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case(key))
        .map(|(_, value)| value.trim().trim_matches('"'))
}

fn first_of_list(list: &str) -> Option<&str> {
    list.split(',')
        .next()
        .map(str::trim)
        .filter(|first| !first.is_empty())
}

/// The address of a proxy's `for`, without its port. `unknown` and made-up names
/// (`_hidden`) are none.
fn node_address(node: &str) -> Option<&str> {
    let (address, _) = host_and_port(node)?;
    (!address.starts_with('_') && address != "unknown").then_some(address)
}

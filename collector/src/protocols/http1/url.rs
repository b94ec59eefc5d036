//! Request targets and authorities, with the secrets taken out.

use std::borrow::Cow;

/// Query keys whose values are secret by the semantic conventions.
const SECRET_KEYS: &[&str] = &[
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];
/// Longer texts are cut; the rest of a URL this long is seldom read by anyone.
const MAX_TEXT: usize = 8 * 1024;
const MAX_HOST: usize = 255;

/// The four forms of RFC 9112, 3.2, in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Absolute form only.
    pub(super) scheme: Option<&'a str>,
    /// Absolute form and CONNECT; may hold credentials.
    pub(super) authority: Option<&'a str>,
    /// With its slash; empty for CONNECT.
    pub(super) path: &'a str,
    /// Without its question mark.
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn read(method: &str, text: &'a str) -> Self {
        if method == "CONNECT" {
            return Self {
                authority: Some(text),
                ..Self::default()
            };
        }
        let scheme_is = |scheme: &str| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let (scheme, authority, rest) = match text.split_once("://") {
            Some((scheme, after)) if scheme_is(scheme) => {
                let end = after.find(['/', '?', '#']).unwrap_or(after.len());
                let (authority, rest) = after.split_at_checked(end).unwrap_or((after, ""));
                (Some(scheme), Some(authority), rest)
            }
            _ => (None, None, text),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Self {
            scheme,
            authority,
            path,
            query,
        }
    }
}

/// Host and port of an authority. Anything that is not made of a name's or an
/// address's characters is refused.
pub(super) fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, after)) => (address, after.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let fits = !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(is_host);
    let port = port
        .and_then(|port| port.parse().ok())
        .filter(|port| *port != 0);
    fits.then_some((host, port))
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte)
}

/// The authority with credentials replaced, as the semantic conventions ask.
pub(super) fn redacted_authority(authority: &str) -> Cow<'_, str> {
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("REDACTED:REDACTED@{host}").into(),
        None => authority.into(),
    }
}

/// The query with secret values replaced; keys stay.
pub(super) fn redacted_query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| {
        let (key, _) = pair.split_once('=')?;
        let plain = percent_decoded(key);
        SECRET_KEYS
            .contains(&&*plain)
            .then(|| format!("{key}=REDACTED"))
    };
    if !query.split('&').any(|pair| secret(pair).is_some()) {
        return query.into();
    }
    let pairs: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| secret(pair).map_or(pair.into(), Cow::from))
        .collect();
    pairs.join("&").into()
}

/// Percent signs that encode nothing stay as they are.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    decoded.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let byte = piece
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (Some(byte), Some(rest)) = (byte, piece.get(2..)) {
            decoded.push(byte);
            decoded.extend_from_slice(rest.as_bytes());
        } else {
            decoded.push(b'%');
            decoded.extend_from_slice(piece.as_bytes());
        }
    }
    String::from_utf8_lossy(&decoded).into_owned().into()
}

/// Cuts a text that is too long for an attribute, between two characters.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

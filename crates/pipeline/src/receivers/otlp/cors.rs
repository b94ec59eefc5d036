//! Cross-origin requests (WHATWG Fetch, "CORS protocol"): spans out of a browser.

use crate::component::Check;
use hyper::header::{self, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

/// `cors`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CorsSettings {
    /// Such as `https://shop.example`, with one `*` for any text; none = off.
    pub allowed_origins: Vec<String>,
    /// Headers allowed besides those that always are; `*` = all.
    pub allowed_headers: Vec<String>,
    /// Seconds that a browser may remember the answer; 0 = its own default.
    pub max_age: u32,
}

/// Always allowed: what exporters in a browser send.
const SAFE_HEADERS: &str = "accept, content-encoding, content-type, x-requested-with";

impl CorsSettings {
    /// Notes what cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if origin.matches('*').count() > 1 {
                check.error(&format!("allowed_origins::{index}"), "may have one * only");
            }
        }
        for (index, name) in self.allowed_headers.iter().enumerate() {
            if name != "*" && header::HeaderName::from_bytes(name.as_bytes()).is_err() {
                let key = format!("allowed_headers::{index}");
                check.error(&key, "is not the name of a header");
            }
        }
    }

    /// Adds to the answer what lets a browser hand it to the page. False: the page may not.
    pub fn allow(&self, request: &HeaderMap, answer: &mut HeaderMap) -> bool {
        if self.allowed_origins.is_empty() {
            return false;
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.get(header::ORIGIN) else {
            return false;
        };
        let text = origin.to_str().unwrap_or_default();
        if !self
            .allowed_origins
            .iter()
            .any(|allowed| fits(allowed, text))
        {
            return false;
        }
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        true
    }

    /// Answers what a browser asks before it sends spans.
    pub fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if !self.allow(request, answer) {
            return;
        }
        let methods = HeaderValue::from_static("POST");
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let headers = match wanted {
            Some(wanted) if self.allowed_headers.iter().any(|name| name == "*") => wanted.clone(),
            _ => {
                let mut names = vec![SAFE_HEADERS];
                names.extend(self.allowed_headers.iter().map(String::as_str));
                let safe = HeaderValue::from_static(SAFE_HEADERS);
                HeaderValue::from_str(&names.join(", ")).unwrap_or(safe)
            }
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
        if self.max_age > 0 {
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.into());
        }
    }
}

fn fits(allowed: &str, origin: &str) -> bool {
    match allowed.split_once('*') {
        None => allowed.eq_ignore_ascii_case(origin),
        Some((before, after)) => {
            let origin = origin.to_ascii_lowercase();
            let rest = origin.strip_prefix(&before.to_ascii_lowercase());
            rest.is_some_and(|rest| rest.ends_with(&after.to_ascii_lowercase()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stands_for_any_text() {
        for (allowed, origin, expected) in [
            ("*", "https://a.example", true),
            ("https://a.example", "https://A.example", true),
            ("https://a.example", "https://a.example:8080", false),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "http://a.example", false),
            ("https://*.example", "https://.example.evil", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(allowed, origin), expected, "{allowed} {origin}");
        }
    }
}

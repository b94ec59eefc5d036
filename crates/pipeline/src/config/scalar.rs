//! What a scalar without quotes stands for (YAML 1.2 core schema).

use super::node::{Scalar, Style};
use super::wording::DecodeError;
use serde::de::Visitor;

/// A plain scalar is what it looks like (YAML 1.2 core schema); any other is text.
pub(super) fn visit_scalar<'de, V: Visitor<'de>>(
    scalar: &Scalar,
    visitor: V,
) -> Result<V::Value, DecodeError> {
    let text = scalar.text.as_str();
    if scalar.style == Style::Quoted {
        return visitor.visit_str(text);
    }
    if let Some(truth) = as_bool(text) {
        return visitor.visit_bool(truth);
    }
    if let Some(number) = as_int(text) {
        return match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) => visitor.visit_u64(number),
            (_, Ok(number)) => visitor.visit_i64(number),
            _ => visitor.visit_str(text),
        };
    }
    match as_float(text) {
        Some(number) => visitor.visit_f64(number),
        None => visitor.visit_str(text),
    }
}

/// Whether a plain scalar looks like neither a number nor a truth value.
pub(super) fn is_text(text: &str) -> bool {
    as_bool(text).is_none() && as_int(text).is_none() && as_float(text).is_none()
}

/// `true` and `false` as YAML has them.
pub(super) fn as_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Whole numbers as YAML has them: decimal, `0x`, `0o`.
pub(super) fn as_int(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16).ok();
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i128::from_str_radix(octal, 8).ok();
    }
    text.parse().ok()
}

/// Other numbers.
pub(super) fn as_float(text: &str) -> Option<f64> {
    let looks_like = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
    let has_digit = text.chars().any(|c| c.is_ascii_digit());
    if looks_like && has_digit {
        text.parse().ok()
    } else {
        None
    }
}

//! What paths, literals and functions give, and how two of them compare.

use super::super::attribute;
use super::Unanswerable;
use crate::proto::common::v1::any_value::Value as Attribute;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A value while a condition is being answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// ns since the Unix epoch.
    Time(i128),
    /// ns.
    Duration(i128),
    /// A list or map of an attribute.
    Nested(&'a Attribute),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// `+` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl<'a> From<Option<&'a Attribute>> for Value<'a> {
    fn from(value: Option<&'a Attribute>) -> Self {
        match value {
            None | Some(Attribute::StringValueStrindex(_)) => Self::Nil,
            Some(Attribute::BoolValue(truth)) => Self::Bool(*truth),
            Some(Attribute::IntValue(number)) => Self::Int(*number),
            Some(Attribute::DoubleValue(number)) => Self::Float(*number),
            Some(Attribute::StringValue(text)) => Self::Str(Cow::Borrowed(text)),
            Some(Attribute::BytesValue(bytes)) => Self::Bytes(Cow::Borrowed(bytes)),
            Some(nested @ (Attribute::ArrayValue(_) | Attribute::KvlistValue(_))) => {
                Self::Nested(nested)
            }
        }
    }
}

impl Value<'_> {
    /// For messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a double",
            Self::Str(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "a time",
            Self::Duration(_) => "a duration",
            Self::Nested(Attribute::ArrayValue(_)) => "a list",
            Self::Nested(_) => "a map",
        }
    }

    /// As text; None for nil.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        let owned = match self {
            Self::Nil => return None,
            Self::Str(text) => return Some(Cow::Borrowed(text)),
            Self::Nested(value) => return Some(attribute::text(value)),
            Self::Bool(truth) => Attribute::BoolValue(*truth),
            Self::Int(number) => Attribute::IntValue(*number),
            Self::Float(number) => Attribute::DoubleValue(*number),
            Self::Bytes(bytes) => return Some(Cow::Owned(attribute::hex(bytes))),
            Self::Time(nanos) | Self::Duration(nanos) => {
                return Some(Cow::Owned(nanos.to_string()));
            }
        };
        Some(Cow::Owned(attribute::text(&owned).into_owned()))
    }

    /// By the rules of OTTL: numbers compare as numbers, and what has nothing in common is
    /// unequal and neither less nor greater.
    pub fn compare(&self, comparison: Comparison, other: &Value<'_>) -> bool {
        let Some(order) = self.order(other) else {
            let equal = self.is_same_nested(other);
            return match comparison {
                Comparison::Equal => equal,
                Comparison::NotEqual => !equal,
                _ => false,
            };
        };
        match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }

    fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "OTTL compares mixed numbers as float64"
        )]
        match (self, other) {
            (Self::Nil, Value::Nil) => Some(Ordering::Equal),
            (Self::Bool(one), Value::Bool(two)) => Some(one.cmp(two)),
            (Self::Int(one), Value::Int(two)) => Some(one.cmp(two)),
            (Self::Float(one), Value::Float(two)) => one.partial_cmp(two),
            (Self::Int(one), Value::Float(two)) => (*one as f64).partial_cmp(two),
            (Self::Float(one), Value::Int(two)) => one.partial_cmp(&(*two as f64)),
            (Self::Str(one), Value::Str(two)) => Some(one.cmp(two)),
            (Self::Bytes(one), Value::Bytes(two)) => Some(one.cmp(two)),
            (Self::Time(one), Value::Time(two)) | (Self::Duration(one), Value::Duration(two)) => {
                Some(one.cmp(two))
            }
            _ => None,
        }
    }

    fn is_same_nested(&self, other: &Value<'_>) -> bool {
        matches!((self, other), (Self::Nested(one), Value::Nested(two)) if one == two)
    }

    /// Computes with times and durations as one does, with numbers of one type only.
    pub fn compute<'b>(
        &self,
        operator: Operator,
        other: &Value<'_>,
    ) -> Result<Value<'b>, Unanswerable> {
        use Operator::{Add, Divide, Multiply, Subtract};
        let result = match (operator, self, other) {
            (_, Self::Int(one), Value::Int(two)) => whole(operator, *one, *two).map(Value::Int),
            (Add, Self::Float(one), Value::Float(two)) => Some(Value::Float(one + two)),
            (Subtract, Self::Float(one), Value::Float(two)) => Some(Value::Float(one - two)),
            (Multiply, Self::Float(one), Value::Float(two)) => Some(Value::Float(one * two)),
            (Divide, Self::Float(one), Value::Float(two)) => Some(Value::Float(one / two)),
            (Subtract, Self::Time(one), Value::Time(two))
            | (Subtract, Self::Duration(one), Value::Duration(two)) => {
                one.checked_sub(*two).map(Value::Duration)
            }
            (Subtract, Self::Time(one), Value::Duration(two)) => {
                one.checked_sub(*two).map(Value::Time)
            }
            (Add, Self::Time(one), Value::Duration(two))
            | (Add, Self::Duration(one), Value::Time(two)) => {
                one.checked_add(*two).map(Value::Time)
            }
            (Add, Self::Duration(one), Value::Duration(two)) => {
                one.checked_add(*two).map(Value::Duration)
            }
            _ => None,
        };
        result.ok_or_else(|| {
            let message = format!("cannot compute with {} and {}", self.kind(), other.kind());
            Unanswerable(message.into())
        })
    }
}

fn whole(operator: Operator, one: i64, two: i64) -> Option<i64> {
    match operator {
        Operator::Add => one.checked_add(two),
        Operator::Subtract => one.checked_sub(two),
        Operator::Multiply => one.checked_mul(two),
        Operator::Divide => one.checked_div(two),
    }
}

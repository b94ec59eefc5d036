//! The tree of a condition, and its answer.

use super::function::Function;
use super::path::Path;
use super::value::{Comparison, Operator, Value};
use super::{Subject, Unanswerable};
use crate::processors::pattern::Pattern;
use std::borrow::Cow;

/// Something that is true or false.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Literal(bool),
    Not(Box<Test>),
    And(Vec<Test>),
    Or(Vec<Test>),
    Compare(Term, Comparison, Term),
    /// Whether the text of a value matches; nil does not.
    Matches(Term, Pattern),
    /// A function whose answer is yes or no.
    Ask(Function, Vec<Term>),
}

/// Something that has a value.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Path(Path),
    Call(Function, Vec<Term>),
    Compute(Box<Term>, Operator, Box<Term>),
    /// `IsMatch` where a value stands.
    Matches(Box<Term>, Pattern),
}

impl Test {
    pub fn holds(&self, subject: Subject<'_>) -> Result<bool, Unanswerable> {
        match self {
            Self::Literal(truth) => Ok(*truth),
            Self::Not(test) => Ok(!test.holds(subject)?),
            Self::And(tests) => {
                for test in tests {
                    if !test.holds(subject)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Or(tests) => {
                for test in tests {
                    if test.holds(subject)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.value(subject)?, right.value(subject)?);
                Ok(left.compare(*comparison, &right))
            }
            Self::Matches(term, pattern) => matches(term, pattern, subject),
            Self::Ask(function, terms) => Ok(call(*function, terms, subject)? == Value::Bool(true)),
        }
    }
}

impl Term {
    fn value<'a>(&'a self, subject: Subject<'a>) -> Result<Value<'a>, Unanswerable> {
        Ok(match self {
            Self::Nil => Value::Nil,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(number) => Value::Int(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Str(text) => Value::Str(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            Self::Path(path) => path.value(subject)?,
            Self::Call(function, terms) => call(*function, terms, subject)?,
            Self::Compute(left, operator, right) => {
                let right = right.value(subject)?;
                left.value(subject)?.compute(*operator, &right)?
            }
            Self::Matches(term, pattern) => Value::Bool(matches(term, pattern, subject)?),
        })
    }
}

fn call<'a>(
    function: Function,
    terms: &'a [Term],
    subject: Subject<'a>,
) -> Result<Value<'a>, Unanswerable> {
    let arguments: Result<Vec<_>, _> = terms.iter().map(|term| term.value(subject)).collect();
    function.call(&arguments?, subject)
}

fn matches(term: &Term, pattern: &Pattern, subject: Subject<'_>) -> Result<bool, Unanswerable> {
    let value = term.value(subject)?;
    Ok(value.text().is_some_and(|text| pattern.is_match(&text)))
}

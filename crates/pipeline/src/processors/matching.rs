//! `include` and `exclude`: which spans a processor is about.

use super::attribute::{self, Literal};
use super::pattern::Pattern;
use super::walk::Origin;
use crate::component::Check;
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use crate::proto::trace::v1::Span;
use crate::proto::trace::v1::span::SpanKind;
use schemars::JsonSchema;
use serde::Deserialize;

/// `include` or `exclude`: all that is given must match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct MatchSettings {
    /// How values are compared.
    match_type: Option<MatchType>,
    /// Values of `service.name`; one must match.
    services: Vec<String>,
    /// Names of spans; one must match.
    span_names: Vec<String>,
    /// Kinds such as `SPAN_KIND_SERVER`; one must match.
    span_kinds: Vec<String>,
    /// Attributes of the span; all must match.
    attributes: Vec<KeyMatch>,
    /// Attributes of the resource; all must match.
    resources: Vec<KeyMatch>,
    /// Instrumentation scopes; all must match.
    libraries: Vec<LibraryMatch>,
}

/// `match_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum MatchType {
    /// Equal, in type too.
    Strict,
    /// A regular expression that matches anywhere in the text.
    Regexp,
}

/// An attribute that must be there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct KeyMatch {
    /// Its key.
    key: String,
    /// Its value; none: any.
    value: Option<Literal>,
}

/// An instrumentation scope.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct LibraryMatch {
    /// Its name.
    name: String,
    /// Its version; none: any.
    version: Option<String>,
}

impl MatchSettings {
    /// Notes what cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        if let Err((key, message)) = Matcher::new(self) {
            check.error(&key, message);
        }
    }
}

/// Settings, ready to match.
#[derive(Debug)]
pub(super) struct Matcher {
    services: Vec<TextMatch>,
    span_names: Vec<TextMatch>,
    span_kinds: Vec<TextMatch>,
    attributes: Vec<(String, ValueMatch)>,
    resources: Vec<(String, ValueMatch)>,
    libraries: Vec<(TextMatch, Option<TextMatch>)>,
}

#[derive(Debug)]
enum TextMatch {
    Equal(String),
    Pattern(Pattern),
}

#[derive(Debug)]
enum ValueMatch {
    Any,
    Equal(Value),
    Pattern(Pattern),
}

/// The key that is wrong, and why.
type Wrong = (String, String);

impl Matcher {
    pub fn new(settings: &MatchSettings) -> Result<Self, Wrong> {
        let Some(match_type) = settings.match_type else {
            let message = "must be set: strict or regexp".to_owned();
            return Err(("match_type".to_owned(), message));
        };
        let texts = |key: &str, texts: &[String]| -> Result<Vec<TextMatch>, Wrong> {
            let numbered = texts.iter().enumerate();
            let made = numbered.map(|(index, text)| {
                TextMatch::new(match_type, text).map_err(|error| (format!("{key}::{index}"), error))
            });
            made.collect()
        };
        let values = |key: &str, wanted: &[KeyMatch]| -> Result<Vec<_>, Wrong> {
            let numbered = wanted.iter().enumerate();
            let made = numbered.map(|(index, wanted)| {
                let value = ValueMatch::new(match_type, wanted);
                let value = value.map_err(|error| (format!("{key}::{index}"), error))?;
                Ok((wanted.key.clone(), value))
            });
            made.collect()
        };
        let libraries = settings.libraries.iter().enumerate();
        let libraries = libraries.map(|(index, library)| {
            let wrong = |error| (format!("libraries::{index}"), error);
            let name = TextMatch::new(match_type, &library.name).map_err(wrong)?;
            let version = library.version.as_deref();
            let version = version.map(|version| TextMatch::new(match_type, version));
            Ok((name, version.transpose().map_err(wrong)?))
        });
        let matcher = Self {
            services: texts("services", &settings.services)?,
            span_names: texts("span_names", &settings.span_names)?,
            span_kinds: texts("span_kinds", &settings.span_kinds)?,
            attributes: values("attributes", &settings.attributes)?,
            resources: values("resources", &settings.resources)?,
            libraries: libraries.collect::<Result<_, Wrong>>()?,
        };
        matcher.check_kinds(&settings.span_kinds)?;
        if matcher.is_empty() {
            let message = "one of services, span_names, span_kinds, attributes, resources, libraries is needed";
            return Err((String::new(), message.to_owned()));
        }
        Ok(matcher)
    }

    fn is_empty(&self) -> bool {
        let texts = [&self.services, &self.span_names, &self.span_kinds];
        texts.iter().all(|texts| texts.is_empty())
            && self.attributes.is_empty()
            && self.resources.is_empty()
            && self.libraries.is_empty()
    }

    /// A kind that no span has is a slip.
    fn check_kinds(&self, written: &[String]) -> Result<(), Wrong> {
        let kinds = (0..=5).filter_map(|kind| SpanKind::try_from(kind).ok());
        let names: Vec<&str> = kinds.map(|kind| kind.as_str_name()).collect();
        let pairs = self.span_kinds.iter().zip(written).enumerate();
        for (index, (wanted, text)) in pairs {
            if !names.iter().any(|name| wanted.matches(name)) {
                let known = names.join(", ");
                let message = format!("\"{text}\" matches no span kind: {known}");
                return Err((format!("span_kinds::{index}"), message));
            }
        }
        Ok(())
    }

    /// Whether all that is given matches.
    pub fn matches(&self, origin: Origin<'_>, span: &Span) -> bool {
        let one_of = |wanted: &[TextMatch], text: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.matches(text))
        };
        let service = attribute::find(origin.resource, "service.name");
        let service = service.map(attribute::text).unwrap_or_default();
        let kind = SpanKind::try_from(span.kind).unwrap_or_default();
        one_of(&self.services, &service)
            && one_of(&self.span_names, &span.name)
            && one_of(&self.span_kinds, kind.as_str_name())
            && all_match(&self.libraries, |(name, version)| {
                let version = version.as_ref();
                name.matches(&origin.scope.name)
                    && version.is_none_or(|version| version.matches(&origin.scope.version))
            })
            && all_match(&self.resources, |wanted| has(origin.resource, wanted))
            && all_match(&self.attributes, |wanted| has(&span.attributes, wanted))
    }
}

fn all_match<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.iter().all(matches)
}

fn has(attributes: &[KeyValue], (key, wanted): &(String, ValueMatch)) -> bool {
    attribute::find(attributes, key).is_some_and(|value| wanted.matches(value))
}

impl TextMatch {
    fn new(match_type: MatchType, text: &str) -> Result<Self, String> {
        match match_type {
            MatchType::Strict => Ok(Self::Equal(text.to_owned())),
            MatchType::Regexp => Pattern::new(text).map(Self::Pattern),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(wanted) => wanted == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

impl ValueMatch {
    fn new(match_type: MatchType, wanted: &KeyMatch) -> Result<Self, String> {
        if wanted.key.is_empty() {
            return Err("key must be set".to_owned());
        }
        match (&wanted.value, match_type) {
            (None, _) => Ok(Self::Any),
            (Some(Literal(value)), MatchType::Strict) => Ok(Self::Equal(value.clone())),
            (Some(Literal(Value::StringValue(text))), MatchType::Regexp) => {
                Pattern::new(text).map(Self::Pattern)
            }
            (Some(_), MatchType::Regexp) => {
                Err("value must be a regular expression in quotes".to_owned())
            }
        }
    }

    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Equal(wanted) => wanted == value,
            Self::Pattern(pattern) => {
                let nested = matches!(
                    value,
                    Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_)
                );
                !nested && pattern.is_match(&attribute::text(value))
            }
        }
    }
}

/// `include` and `exclude` together.
#[derive(Debug, Default)]
pub(super) struct Choice {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Choice {
    /// The key that is wrong, and why, if something is.
    pub fn new(
        include: Option<&MatchSettings>,
        exclude: Option<&MatchSettings>,
    ) -> Result<Self, String> {
        let matcher = |settings: Option<&MatchSettings>| {
            let matcher = settings.map(Matcher::new).transpose();
            matcher.map_err(|(key, message)| format!("{key}: {message}"))
        };
        Ok(Self {
            include: matcher(include)?,
            exclude: matcher(exclude)?,
        })
    }

    /// Whether a span is meant: included, and not excluded.
    pub fn means(&self, origin: Origin<'_>, span: &Span) -> bool {
        let matches = |matcher: &Matcher| matcher.matches(origin, span);
        self.include.as_ref().is_none_or(matches) && !self.exclude.as_ref().is_some_and(matches)
    }
}

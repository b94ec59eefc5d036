//! What conditions mean, and what is said of those that cannot be read.

use super::{Condition, Context, Subject};
use crate::processors::attribute::{set, string};
use crate::processors::walk::Origin;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValueList};
use crate::proto::trace::v1::span::Event;
use crate::proto::trace::v1::{Span, Status};

/// Asks about one span, which has a bit of everything, and its event.
fn answer(text: &str, context: Context) -> Result<bool, String> {
    let condition = Condition::parse(text, context).map_err(|error| error.to_string())?;
    let mut attributes = Vec::new();
    let list = vec![AnyValue {
        value: Some(string("a")),
    }];
    let mut inner = Vec::new();
    set(&mut inner, "deep", Value::IntValue(1));
    for (key, value) in [
        ("http.route", string("/cart")),
        ("http.response.status_code", Value::IntValue(404)),
        ("ratio", Value::DoubleValue(0.5)),
        ("cached", Value::BoolValue(true)),
        ("list", Value::ArrayValue(ArrayValue { values: list })),
        ("map", Value::KvlistValue(KeyValueList { values: inner })),
        ("number", string("12")),
    ] {
        set(&mut attributes, key, value);
    }
    let mut resource = Vec::new();
    set(&mut resource, "service.name", string("shop"));
    let scope = InstrumentationScope {
        name: "deeptrace".to_owned(),
        ..InstrumentationScope::default()
    };
    let event = Event {
        name: "exception".to_owned(),
        attributes: resource.clone(),
        ..Event::default()
    };
    let span = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        name: "GET /cart".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 2_500_000_000,
        status: Some(Status {
            code: 2,
            message: "not \"there\"".to_owned(),
        }),
        attributes,
        ..Span::default()
    };
    let subject = Subject {
        origin: Origin {
            resource: &resource,
            scope: &scope,
        },
        span: &span,
        event: (context == Context::Event || condition.is_about_event()).then_some(&event),
    };
    condition.holds(subject).map_err(|error| error.to_string())
}

#[test]
fn conditions_hold_or_not() {
    let holding = [
        "true",
        "span.name == \"GET /cart\"",
        "span.kind == SPAN_KIND_SERVER and span.status.code == STATUS_CODE_ERROR",
        "span.status.message == \"not \\\"there\\\"\"",
        "span.attributes[\"http.response.status_code\"] >= 400",
        "span.attributes[\"http.response.status_code\"] == 404.0",
        "span.attributes[\"ratio\"] < 1 and span.attributes[\"ratio\"] > .25",
        "span.attributes[\"cached\"] == true",
        "span.attributes[\"missing\"] == nil",
        "span.attributes[\"http.route\"] != nil",
        "span.attributes[\"http.route\"] != 404",
        "not span.attributes[\"http.route\"] < 404",
        "span.attributes[\"list\"][0] == \"a\" and span.attributes[\"map\"][\"deep\"] == 1",
        "span.attributes[\"list\"][1] == nil and span.attributes[\"list\"][\"x\"] == nil",
        "resource.attributes[\"service.name\"] == \"shop\"",
        "scope.name == \"deeptrace\" and instrumentation_scope.version == \"\"",
        "IsMatch(span.name, \"^GET /c.*t$\")",
        "IsMatch(span.attributes[\"http.response.status_code\"], \"4\\\\d{2}\")",
        "not IsMatch(span.attributes[\"missing\"], \".*\")",
        "IsRootSpan()",
        "HasPrefix(span.name, \"GET\") and HasSuffix(span.name, \"cart\")",
        "Index(span.name, \"cart\") >= 0 and Index(span.name, \"post\") == -1",
        "span.end_time - span.start_time > Duration(\"1s\")",
        "Milliseconds(span.end_time - span.start_time) == 1500",
        "span.end_time_unix_nano - span.start_time_unix_nano >= 1500000000",
        "span.trace_id.string == \"abababababababababababababababab\"",
        "span.trace_id == 0xabababababababababababababababab",
        "IsString(span.name) and IsInt(span.kind) and not IsBool(nil)",
        "Int(span.attributes[\"number\"]) + 1 == 13",
        "Len(span.attributes[\"list\"]) * 2 == 2",
        "ContainsValue(span.attributes[\"list\"], \"a\")",
        "ToUpperCase(\"a\") == \"A\"",
        "IsMatch(\"a\", \"b\") == false",
        // `not` before `and` before `or`.
        "true or false and false",
        "not false and not (true and false)",
        "(1 + 2) * 3 == 9 and ((2 > 1))",
        "1 + 2 * 3 == 7",
        "spanevent.name == \"exception\" and span.kind == 2",
    ];
    for text in holding {
        assert_eq!(answer(text, Context::Inferred), Ok(true), "{text}");
        let negated = format!("not ({text})");
        assert_eq!(answer(&negated, Context::Inferred), Ok(false), "{negated}");
    }
    let cases = [
        (
            Context::Span,
            "name == \"GET /cart\" and attributes[\"cached\"]==true",
        ),
        (
            Context::Span,
            "resource.attributes[\"service.name\"] == \"shop\"",
        ),
        (
            Context::Event,
            "name == \"exception\" and span.name == \"GET /cart\"",
        ),
        (Context::Event, "attributes[\"service.name\"] == \"shop\""),
    ];
    for (context, text) in cases {
        assert_eq!(answer(text, context), Ok(true), "{text}");
    }
}

#[test]
fn what_cannot_be_answered_says_why() {
    let cases = [
        (
            "HasPrefix(span.attributes[\"missing\"], \"a\")",
            "HasPrefix wants a string, got nil",
        ),
        (
            "span.name - 1 == 2",
            "cannot compute with a string and an int",
        ),
        ("1 / 0 == 1", "cannot compute with an int and an int"),
        (
            "Milliseconds(1) == 2",
            "Milliseconds wants a duration, got an int",
        ),
    ];
    for (text, why) in cases {
        assert_eq!(
            answer(text, Context::Inferred),
            Err(why.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    for (text, error) in UNREADABLE {
        assert_eq!(
            answer(text, Context::Inferred),
            Err((*error).to_owned()),
            "{text}"
        );
    }
    let deep = format!("{}true{}", "(".repeat(65), ")".repeat(65));
    let error = "column 65: more than 64 levels deep".to_owned();
    assert_eq!(answer(&deep, Context::Inferred), Err(error));
}

const UNREADABLE: &[(&str, &str)] = &[
    ("", "column 1: expected a value, got the end"),
    (
        "span.name = \"a\"",
        "column 11: unexpected '=': to compare, write ==",
    ),
    (
        "span.name == 'a'",
        "column 14: unexpected ''': text stands in double quotes",
    ),
    (
        "span.name == \"é\" && true",
        "column 18: unexpected '&': write and",
    ),
    ("span.name == \"a", "column 14: this text has no closing \""),
    (
        "IsMatch(span.name, \"\\d\")",
        "column 21: unknown escape \\d: for a backslash write \\\\",
    ),
    (
        "IsMatch(span.name, \"a(\")",
        "column 20: \"a(\" is no regular expression: unclosed group",
    ),
    (
        "IsMatch(span.name)",
        "column 1: IsMatch takes 2 arguments, got 1",
    ),
    (
        "IsMatch(span.name, span.name)",
        "column 20: the pattern must stand here as text in quotes",
    ),
    (
        "IsRotSpan()",
        "column 1: unknown function or constant \"IsRotSpan\", did you mean \"IsRootSpan\"?",
    ),
    (
        "span.kind == SPAN_KIND_SERVR",
        "column 14: unknown function or constant \"SPAN_KIND_SERVR\", did you mean \"SPAN_KIND_SERVER\"?",
    ),
    (
        "span.nme == 1",
        "column 1: unknown path \"nme\", did you mean \"name\"?",
    ),
    ("span.name[\"a\"] == 1", "column 1: \"name\" takes no key"),
    (
        "span.attributes == nil",
        "column 1: attributes need a key, as in attributes[\"key\"]",
    ),
    (
        "span.attributes[key] == nil",
        "column 17: expected a key in quotes, got \"key\"",
    ),
    (
        "name == 1",
        "column 1: \"name\" must begin with resource, scope, span or spanevent",
    ),
    (
        "true and span.name",
        "column 19: expected a comparison such as ==, got the end",
    ),
    ("true and 1", "column 10: this is a value and no condition"),
    ("(true", "column 6: expected \")\", got the end"),
    (
        "true true",
        "column 6: expected and, or, or the end, got \"true\"",
    ),
    ("true or", "column 8: expected a value, got the end"),
    ("span.kind == 0x1", "column 14: \"0x1\" is no number"),
    ("span.kind == 12abc", "column 14: \"12abc\" is no number"),
];

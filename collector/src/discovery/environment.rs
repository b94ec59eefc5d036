//! The few variables of a target's environment that we may look at.
//!
//! Environments hold secrets. Only the variables named here are ever kept.

/// What a process was told about itself when it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// Decoded `OTEL_RESOURCE_ATTRIBUTES`, in order; the last of equal keys is kept, as in the SDKs.
    pub resource_attributes: Vec<(String, String)>,
    /// `npm_package_name`: set by `npm start` and its kin.
    pub package_name: Option<String>,
    /// `FLASK_APP`: the module that a bare `flask run` serves.
    pub flask_app: Option<String>,
}

/// Attributes taken from one variable; more are dropped.
const MAX_ATTRIBUTES: usize = 64;
/// Characters of one value; longer values are cut.
const MAX_VALUE_CHARS: usize = 1024;

impl Environment {
    /// Takes the bytes of `/proc/PID/environ`: the environment at the time of exec.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut environment = Self::default();
        for variable in bytes.split(|byte| *byte == 0) {
            let Some((key, value)) = split_once(variable, b'=') else {
                continue;
            };
            let text = || {
                Some(clip(String::from_utf8_lossy(value).trim())).filter(|text| !text.is_empty())
            };
            match key {
                b"OTEL_SERVICE_NAME" => environment.service_name = text(),
                b"OTEL_RESOURCE_ATTRIBUTES" => environment.resource_attributes = attributes(value),
                b"npm_package_name" => environment.package_name = text(),
                b"FLASK_APP" => environment.flask_app = text(),
                _ => {}
            }
        }
        environment
    }

    /// A resource attribute by its key.
    pub fn resource_attribute(&self, key: &str) -> Option<&str> {
        self.resource_attributes
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// `key=value,key=value` with percent-encoding. The specification lets an SDK
/// throw the whole variable away for one broken member; we observe and are more
/// lenient: a broken member is left out, a broken escape stays as it is.
fn attributes(value: &[u8]) -> Vec<(String, String)> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for member in value.split(|byte| *byte == b',') {
        let Some((key, value)) = split_once(member, b'=') else {
            continue;
        };
        let (key, value) = (
            percent_decoded(key.trim_ascii()),
            percent_decoded(value.trim_ascii()),
        );
        if key.is_empty() || value.is_empty() {
            continue;
        }
        if let Some((_, earlier)) = attributes.iter_mut().find(|(known, _)| *known == key) {
            *earlier = clip(&value);
        } else if attributes.len() < MAX_ATTRIBUTES {
            attributes.push((key, clip(&value)));
        }
    }
    attributes
}

fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escape = match (first, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escape {
            decoded.push(high << 4 | low);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_VALUE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(case: &str, value: &str, want: &[(&str, &str)]) {
        let environment =
            Environment::parse(format!("A=b\0OTEL_RESOURCE_ATTRIBUTES={value}\0").as_bytes());
        let want: Vec<_> = want
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(environment.resource_attributes, want, "{case}");
    }

    #[test]
    fn resource_attributes_are_split_and_decoded() {
        check("none", "", &[]);
        check(
            "two",
            "service.name=shop,service.version=1.2",
            &[("service.name", "shop"), ("service.version", "1.2")],
        );
        check("spaces", " a = b , c = d ", &[("a", "b"), ("c", "d")]);
        check("escapes", "team=a%2Cb%3Dc%20%C3%A4", &[("team", "a,b=c ä")]);
        check("value with an equals sign", "a=b=c", &[("a", "b=c")]);
        check(
            "broken members are left out",
            ",a,=b,c=,d=e,",
            &[("d", "e")],
        );
        check(
            "broken escapes stay",
            "a=100%,b=%zz,c=%4",
            &[("a", "100%"), ("b", "%zz"), ("c", "%4")],
        );
        check("the last of equal keys is kept", "a=1,a=2", &[("a", "2")]);
        check("invalid UTF-8 is replaced", "a=%ff", &[("a", "\u{fffd}")]);
    }

    #[test]
    fn only_named_variables_are_kept() {
        let bytes = b"SECRET=x\0OTEL_SERVICE_NAME= shop \0npm_package_name=web\0NOTHING\0=\0OTEL_EXPORTER_OTLP_HEADERS=key";
        let want = Environment {
            service_name: Some("shop".into()),
            package_name: Some("web".into()),
            ..Environment::default()
        };
        assert_eq!(Environment::parse(bytes), want);
    }

    #[test]
    fn an_empty_service_name_is_none() {
        assert_eq!(
            Environment::parse(b"OTEL_SERVICE_NAME=\0").service_name,
            None
        );
    }

    #[test]
    fn attributes_are_bounded_in_number_and_length() {
        let many: Vec<String> = (0..200)
            .map(|n| format!("k{n}={}", "v".repeat(3000)))
            .collect();
        let value = format!("OTEL_RESOURCE_ATTRIBUTES={}", many.join(","));
        let attributes = Environment::parse(value.as_bytes()).resource_attributes;
        assert_eq!(attributes.len(), MAX_ATTRIBUTES);
        assert!(
            attributes
                .iter()
                .all(|(_, value)| value.len() == MAX_VALUE_CHARS)
        );
    }
}

//! The `ot` member of a W3C trace state: `ot=th:c;rv:9b8233f7e3a151`.

use super::threshold::{Randomness, Threshold};

/// Bytes that a trace state may have, and its members (as the Collector limits them).
const MAX_LENGTH: usize = 1024;
const MAX_MEMBERS: usize = 32;
/// Bytes that the value of `ot` may have (specification, trace/tracestate-handling.md).
const MAX_OT_LENGTH: usize = 256;

/// A trace state, of which the `ot` member is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TraceState {
    pub randomness: Option<Randomness>,
    pub threshold: Option<Threshold>,
    /// Other fields of `ot`, as they came.
    fields: Vec<String>,
    /// Other members, as they came.
    members: Vec<String>,
}

impl TraceState {
    /// None: it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut state = Self::default();
        let members = text
            .split(',')
            .map(|member| member.trim_matches([' ', '\t']))
            .filter(|member| !member.is_empty());
        for (index, member) in members.enumerate() {
            let (key, value) = member.split_once('=')?;
            let sound = is_key(key) && is_value(value);
            if !sound || index == MAX_MEMBERS || text.len() > MAX_LENGTH {
                return None;
            }
            if key == "ot" {
                state.read_ot(value)?;
            } else {
                state.members.push(member.to_owned());
            }
        }
        Some(state)
    }

    fn read_ot(&mut self, value: &str) -> Option<()> {
        if value.len() > MAX_OT_LENGTH {
            return None;
        }
        for field in value.split(';') {
            let (key, value) = field.split_once(':')?;
            match key {
                "rv" => self.randomness = Some(Randomness::parse(value)?),
                "th" => self.threshold = Some(Threshold::parse(value)?),
                _ => self.fields.push(field.to_owned()),
            }
        }
        Some(())
    }

    /// As it stands in a span; what was changed last stands first.
    pub fn text(&self) -> String {
        let randomness = self.randomness.map(|value| format!("rv:{}", value.text()));
        let threshold = self.threshold.map(|value| format!("th:{}", value.text()));
        let known = randomness.into_iter().chain(threshold);
        let ot: Vec<String> = known.chain(self.fields.iter().cloned()).collect();
        let ot = (!ot.is_empty()).then(|| format!("ot={}", ot.join(";")));
        let members = ot.into_iter().chain(self.members.iter().cloned());
        members.collect::<Vec<_>>().join(",")
    }
}

/// W3C Trace Context, `key`, without its lengths.
fn is_key(key: &str) -> bool {
    let part = |part: &str, first: fn(&u8) -> bool| {
        let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/".contains(&c);
        part.as_bytes().first().is_some_and(first) && part.bytes().skip(1).all(rest)
    };
    match key.split_once('@') {
        None => part(key, u8::is_ascii_lowercase),
        Some((tenant, system)) => {
            part(tenant, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part(system, u8::is_ascii_lowercase)
        }
    }
}

/// W3C Trace Context, `value`.
fn is_value(value: &str) -> bool {
    let allowed = |c: u8| (b' '..=b'~').contains(&c) && c != b',' && c != b'=';
    !value.is_empty() && value.len() <= 256 && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_goes_out_as_it_came() {
        let cases = [
            ("", ""),
            ("a=1, b@c=2 x", "a=1,b@c=2 x"),
            ("a=1,ot=th:c", "ot=th:c,a=1"),
            (
                "ot=xx:1;th:8;rv:0123456789abcd,a=1",
                "ot=rv:0123456789abcd;th:8;xx:1,a=1",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(TraceState::parse(text).unwrap().text(), expected);
        }
    }

    #[test]
    fn malformed_ones_are_none() {
        let long = format!("a={}", "x".repeat(257));
        let many = "a=1,".repeat(33);
        let cases = [
            "a", "=1", "A=1", "a=", "a=1=2", "ot=th", "ot=th:", "ot=th:C", "ot=rv:1", "ot=;",
            "@a=1", &long, &many,
        ];
        for text in cases {
            assert_eq!(TraceState::parse(text), None, "{text}");
        }
    }
}

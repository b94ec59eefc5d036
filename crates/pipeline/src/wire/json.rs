//! OTLP/JSON into the bytes of the same request (OTLP specification, "JSON Protobuf Encoding").
//!
//! As the specification has it: keys in lowerCamelCase, ids in hex of either case, 64-bit
//! numbers as texts or numbers, enums as numbers, keys that are not known passed over. Names of
//! enums are taken too, since other writers of protobuf JSON use them.

use super::Wire;
use super::schema::{Field, Kind, Message, REQUEST};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::encode_varint;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use std::fmt;

const PADDING_OR_NOT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OR_NOT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OR_NOT);

/// The encoded `ExportTraceServiceRequest` that a JSON text stands for.
pub fn from_json(text: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let fields = Fields {
        message: &REQUEST,
        out: &mut out,
    };
    fields.deserialize(&mut reader)?;
    reader.end()?;
    Ok(out)
}

/// An object, into the fields of a message.
struct Fields<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(number) = map.next_key_seed(Key(self.message))? {
            let Some((number, field)) = number else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            map.next_value_seed(Values {
                message: self.message,
                field,
                number,
                out: self.out,
                in_list: false,
            })?;
        }
        Ok(())
    }
}

/// A key, into the field that it names, with its number.
struct Key(&'static Message);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(u64, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(u64, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let known = (0..).zip(self.0.fields).skip(1);
        let mut known = known.filter(|(_, field)| !matches!(field.kind, Kind::Unknown));
        Ok(known.find(|(_, field)| is_camel_case_of(field.name, key)))
    }
}

fn is_camel_case_of(snake: &str, camel: &str) -> bool {
    let mut upper = false;
    let mut expected = snake.chars().filter_map(|letter| {
        if letter == '_' {
            upper = true;
            return None;
        }
        let letter = if std::mem::take(&mut upper) {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        Some(letter)
    });
    camel.chars().all(|letter| expected.next() == Some(letter)) && expected.next().is_none()
}

/// The value of a field, or a list of values if it is repeated.
struct Values<'a> {
    message: &'static Message,
    field: &'static Field,
    number: u64,
    out: &'a mut Vec<u8>,
    in_list: bool,
}

impl Values<'_> {
    fn key(&mut self) {
        let key = Wire::of(self.field.kind).key(self.number);
        encode_varint(key, self.out);
    }

    fn varint(mut self, value: i64) {
        self.key();
        // Negative numbers have all 64 bits in protobuf.
        encode_varint(value.cast_unsigned(), self.out);
    }

    fn fixed(mut self, bytes: &[u8]) {
        self.key();
        self.out.extend_from_slice(bytes);
    }

    fn bytes(mut self, bytes: &[u8]) {
        self.key();
        encode_varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
    }

    /// A number, whether it stood as one or as a text.
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let wrong = || E::custom(format!("{value} is out of range for {self}"));
        match self.field.kind {
            Kind::Int(least, most) => match i64::try_from(value) {
                Ok(value) if (least..=most).contains(&value) => self.varint(value),
                _ => return Err(wrong()),
            },
            Kind::Enum(_) => match i32::try_from(value) {
                Ok(value) => self.varint(value.into()),
                Err(_) => return Err(wrong()),
            },
            Kind::Fixed32 => match u32::try_from(value) {
                Ok(value) => self.fixed(&value.to_le_bytes()),
                Err(_) => return Err(wrong()),
            },
            Kind::Fixed64 => match u64::try_from(value) {
                Ok(value) => self.fixed(&value.to_le_bytes()),
                Err(_) => return Err(wrong()),
            },
            #[expect(clippy::cast_precision_loss, reason = "JSON has one kind of number")]
            Kind::Double => self.fixed(&(value as f64).to_le_bytes()),
            _ => return Err(E::invalid_type(Unexpected::Other("a number"), &self)),
        }
        Ok(())
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::Text => self.bytes(text.as_bytes()),
            Kind::Blob => match BASE64.decode(text).or_else(|_| BASE64_URL.decode(text)) {
                Ok(bytes) => self.bytes(&bytes),
                Err(_) => return Err(E::custom(format!("{self} is no base64"))),
            },
            Kind::Id(_) | Kind::MaybeId(_) => match from_hex(text) {
                Some(id) => self.bytes(&id),
                None => return Err(E::custom(format!("{self} is no hex: {text:?}"))),
            },
            Kind::Enum(names) => match (0..).zip(names).find(|(_, name)| **name == text) {
                Some((number, _)) => self.varint(number),
                None => return Err(E::custom(format!("{self} has no value {text:?}"))),
            },
            Kind::Double => match text.parse::<f64>() {
                // Also `NaN`, `Infinity` and `-Infinity`.
                Ok(number) => self.fixed(&number.to_le_bytes()),
                Err(_) => return Err(E::invalid_value(Unexpected::Str(text), &self)),
            },
            Kind::Int(..) | Kind::Fixed32 | Kind::Fixed64 => match text.parse::<i128>() {
                Ok(number) => return self.integer(number),
                Err(_) => return Err(E::invalid_value(Unexpected::Str(text), &self)),
            },
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    let id: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    id.filter(|_| rest.is_empty())
}

/// `Span.trace_id`
impl fmt::Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.message.name, self.field.name)
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {self}")
    }

    /// `null`: as if it were not there.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => self.varint(truth.into()),
            _ => return Err(E::invalid_type(Unexpected::Bool(truth), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.fixed(&number.to_le_bytes()),
            _ => return Err(E::invalid_type(Unexpected::Float(number), &self)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if !self.field.repeated || self.in_list {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        loop {
            let item = Values {
                in_list: true,
                out: &mut *self.out,
                ..self
            };
            if items.next_element_seed(item)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.field.kind else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let mut inner = Vec::new();
        Fields {
            message,
            out: &mut inner,
        }
        .visit_map(map)?;
        self.bytes(&inner);
        Ok(())
    }
}

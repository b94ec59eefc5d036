//! A tree of nodes into typed structs, with every error found at once.
//!
//! serde stops at the first error, so the tree is read again without the value
//! that failed until nothing new is found. Unknown keys are noted on the way,
//! since a struct tells its fields before it is read.

use super::node::{Entry, Node, Style, Value};
use super::report::{Place, Report, did_you_mean};
use super::scalar::{is_text, visit_scalar};
use super::wording::{DecodeError, wanted};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Visitor,
};
use std::cell::RefCell;
use std::collections::HashSet;

/// Errors that one section may have before the rest of them is left out.
const MAX_ROUNDS: usize = 100;

/// Reads the node as a `T`, without the values that the report has found wrong.
/// None: too little is left.
pub fn decode<T: DeserializeOwned>(node: &Node, path: &str, report: &mut Report) -> Option<T> {
    let session = Session {
        report: RefCell::new(report),
        failed: RefCell::new(HashSet::new()),
    };
    for _ in 0..MAX_ROUNDS {
        match T::deserialize(Reader {
            node,
            place: &node.place,
            path,
            session: &session,
        }) {
            Ok(value) => return Some(value),
            Err(error) => {
                let at = error
                    .at
                    .unwrap_or_else(|| (path.to_owned(), node.place.clone()));
                let lacks_what_failed = error
                    .missing
                    .is_some_and(|field| session.has_failed(&super::join(&at.0, field)));
                let mut report = session.report.borrow_mut();
                if !lacks_what_failed && !report.has_error_at(&at.0) {
                    report.error(&at.1, &at.0, error.message);
                }
                drop(report);
                if at.0 == path || !session.failed.borrow_mut().insert(at.0) {
                    break;
                }
            }
        }
    }
    None
}

struct Session<'a> {
    report: RefCell<&'a mut Report>,
    /// Paths whose value is known to be wrong and is left out from now on.
    failed: RefCell<HashSet<String>>,
}

impl Session<'_> {
    fn has_failed(&self, path: &str) -> bool {
        self.failed.borrow().contains(path)
    }
}

/// A node on its way into a type.
struct Reader<'a, 's> {
    node: &'a Node,
    /// Where the key stands, or the item of a list.
    place: &'a Place,
    path: &'a str,
    session: &'a Session<'s>,
}

impl Reader<'_, '_> {
    /// An error that a type raises when it has its text lies here too.
    fn seeded<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, DecodeError> {
        let at = (self.path.to_owned(), self.place.clone());
        seed.deserialize(self).map_err(|mut error: DecodeError| {
            error.at.get_or_insert(at);
            error
        })
    }

    fn locate<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|mut error| {
            error
                .at
                .get_or_insert_with(|| (self.path.to_owned(), self.place.clone()));
            error
        })
    }

    fn mismatch<T>(&self, expected: &str) -> Result<T, DecodeError> {
        self.locate(Err(de::Error::custom(format!(
            "expected {expected}, got {}",
            self.node.describe()
        ))))
    }

    fn visit_any<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar(scalar) => visit_scalar(scalar, visitor),
            Value::List(items) => visitor.visit_seq(Items {
                reader: self,
                nodes: items,
                next: 0,
            }),
            Value::Map(entries) => visitor.visit_map(Pairs {
                reader: self,
                entries,
                value: None,
            }),
        };
        self.locate(result)
    }

    fn visit_text<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Some(text) = &self.node.verbatim {
            return self.locate(visitor.visit_str(text));
        }
        let Value::Scalar(scalar) = &self.node.value else {
            return self.mismatch_expected(&visitor);
        };
        // A number where plain text is wanted is a slip; a type of its own (a duration) decides itself.
        if scalar.style == Style::Plain && !is_text(&scalar.text) && wanted(&visitor) == "a string"
        {
            let text = &scalar.text;
            return self.locate(Err(de::Error::custom(format!(
                "expected a string, got {text}, put it in quotes"
            ))));
        }
        self.locate(visitor.visit_str(&scalar.text))
    }

    fn mismatch_expected<'de, V: Visitor<'de>, T>(&self, visitor: &V) -> Result<T, DecodeError> {
        self.mismatch(&wanted(visitor as &dyn Expected))
    }

    fn visit_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.style == Style::Plain => {
                self.locate(visit_scalar(scalar, visitor))
            }
            _ => self.mismatch_expected(&visitor),
        }
    }

    fn note_unknown(&self, entries: &[Entry], fields: &'static [&'static str]) {
        for entry in entries
            .iter()
            .filter(|entry| !fields.contains(&entry.key.as_str()))
        {
            let known = fields
                .iter()
                .copied()
                .filter(|field| entries.iter().all(|other| other.key != *field));
            let message = format!("unknown key{}", did_you_mean(&entry.key, known));
            let path = super::join(self.path, &entry.key);
            self.session
                .report
                .borrow_mut()
                .error(&entry.key_place, &path, message);
        }
    }
}

macro_rules! forward {
    ($($method:ident => $to:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> { self.$to(visitor) })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_, '_> {
    type Error = DecodeError;

    forward! {
        deserialize_any => visit_any, deserialize_ignored_any => visit_any,
        deserialize_bool => visit_number,
        deserialize_i8 => visit_number, deserialize_i16 => visit_number,
        deserialize_i32 => visit_number, deserialize_i64 => visit_number,
        deserialize_u8 => visit_number, deserialize_u16 => visit_number,
        deserialize_u32 => visit_number, deserialize_u64 => visit_number,
        deserialize_f32 => visit_number, deserialize_f64 => visit_number,
        deserialize_char => visit_text, deserialize_str => visit_text,
        deserialize_string => visit_text, deserialize_identifier => visit_text,
        deserialize_bytes => visit_text, deserialize_byte_buf => visit_text,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.visit_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(items) => self.locate(visitor.visit_seq(Items {
                reader: &self,
                nodes: items,
                next: 0,
            })),
            Value::Null => self.locate(visitor.visit_seq(Items {
                reader: &self,
                nodes: &[],
                next: 0,
            })),
            _ => self.mismatch("a list"),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Map(entries) => self.locate(visitor.visit_map(Pairs {
                reader: &self,
                entries,
                value: None,
            })),
            Value::Null => self.locate(visitor.visit_map(Pairs {
                reader: &self,
                entries: &[],
                value: None,
            })),
            _ => self.mismatch("a mapping"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Map(entries) = &self.node.value else {
            return self.deserialize_map(visitor);
        };
        self.note_unknown(entries, fields);
        let known: Vec<Entry> = entries
            .iter()
            .filter(|entry| fields.contains(&entry.key.as_str()))
            .cloned()
            .collect();
        self.locate(visitor.visit_map(Pairs {
            reader: &self,
            entries: &known,
            value: None,
        }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.node.value {
            Value::Scalar(scalar) => {
                let text: StrDeserializer<'_, DecodeError> =
                    scalar.text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            Value::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Pairs {
                    reader: &self,
                    entries,
                    value: None,
                }))
            }
            _ => return self.mismatch(&format!("one of {}", variants.join(", "))),
        };
        self.locate(result)
    }
}

struct Items<'a, 's> {
    reader: &'a Reader<'a, 's>,
    nodes: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let session = self.reader.session;
        while let Some(node) = self.nodes.get(self.next) {
            let path = super::join(self.reader.path, &self.next.to_string());
            self.next += 1;
            if !session.has_failed(&path) {
                let reader = Reader {
                    node,
                    place: &node.place,
                    path: &path,
                    session,
                };
                return reader.seeded(seed).map(Some);
            }
        }
        Ok(None)
    }
}

struct Pairs<'a, 's> {
    reader: &'a Reader<'a, 's>,
    entries: &'a [Entry],
    value: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Pairs<'_, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        while let Some((entry, rest)) = self.entries.split_first() {
            self.entries = rest;
            if !self
                .reader
                .session
                .has_failed(&super::join(self.reader.path, &entry.key))
            {
                self.value = Some(entry);
                let key: StrDeserializer<'_, DecodeError> = entry.key.as_str().into_deserializer();
                return seed.deserialize(key).map(Some).map_err(|mut error| {
                    let path = super::join(self.reader.path, &entry.key);
                    error.at.get_or_insert((path, entry.key_place.clone()));
                    error
                });
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        let path = super::join(self.reader.path, &entry.key);
        let reader = Reader {
            node: &entry.node,
            place: &entry.key_place,
            path: &path,
            session: self.reader.session,
        };
        reader.seeded(seed)
    }
}

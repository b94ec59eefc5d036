//! Which spans share a value: a multi-map from a hashed key to span ids.
//!
//! Keys of different kinds live in one map, apart by a tag in the hash. A
//! 64-bit hash can collide, so readers check what they get against the entry.
//! A value shared by too many spans is not rare and is not listed any more.

use super::FastMap;
use span_model::SpanId;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasher, Hash};

/// A value shared by more spans than this is not listed.
const CROWD: usize = 32;

/// What kind of value a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Ingress spans of a process by trace id on the wire.
    Context,
    /// Ingress spans of a process by rare header value.
    Token,
    /// Spans of a process whose message one thread read at one time.
    Read,
    /// Spans whose thread was woken by one that had read this span's message last.
    Woken,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::box_collection,
    reason = "nearly all lists have one id; a boxed list keeps those small"
)]
enum Ids {
    One(SpanId),
    Many(Box<Vec<SpanId>>),
    Crowd(usize),
}

/// Span ids by hashed value.
#[derive(Debug, Default)]
pub struct Postings {
    lists: FastMap<u64, Ids>,
}

impl Postings {
    /// The key of one value.
    pub fn key(&self, tag: Tag, value: impl Hash) -> u64 {
        self.lists.hasher().hash_one((tag, value))
    }

    /// Lists a span under a key.
    pub fn insert(&mut self, key: u64, id: SpanId) {
        match self.lists.entry(key) {
            MapEntry::Vacant(slot) => {
                slot.insert(Ids::One(id));
            }
            MapEntry::Occupied(mut slot) => {
                let grown = match slot.get_mut() {
                    Ids::One(first) => Ids::Many(Box::new(vec![*first, id])),
                    Ids::Crowd(count) => Ids::Crowd(*count + 1),
                    Ids::Many(ids) if ids.len() >= CROWD => Ids::Crowd(ids.len() + 1),
                    Ids::Many(ids) => {
                        ids.push(id);
                        return;
                    }
                };
                slot.insert(grown);
            }
        }
    }

    /// Takes a span off a key's list; it must have been listed.
    pub fn remove(&mut self, key: u64, id: SpanId) {
        let MapEntry::Occupied(mut slot) = self.lists.entry(key) else {
            return;
        };
        let empty = match slot.get_mut() {
            Ids::One(only) => *only == id,
            Ids::Crowd(count) => {
                *count -= 1;
                *count == 0
            }
            Ids::Many(ids) => {
                ids.retain(|listed| *listed != id);
                ids.is_empty()
            }
        };
        if empty {
            slot.remove();
        }
    }

    /// The spans under a key; `None` when there are too many to list.
    pub fn get(&self, key: u64) -> Option<&[SpanId]> {
        match self.lists.get(&key) {
            Some(Ids::One(id)) => Some(std::slice::from_ref(id)),
            Some(Ids::Many(ids)) => Some(ids),
            Some(Ids::Crowd(_)) => None,
            None => Some(&[]),
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_value_tells_nothing_and_is_forgotten_with_its_spans() {
        let mut postings = Postings::default();
        let key = postings.key(Tag::Token, 7_u64);
        let count = u64::try_from(CROWD).unwrap() + 2;
        for id in 1..=count {
            postings.insert(key, SpanId::from_hash(id));
        }
        assert_eq!(postings.get(key), None);
        for id in 1..=count {
            postings.remove(key, SpanId::from_hash(id));
        }
        assert!(postings.is_empty());
    }

    #[test]
    fn a_list_holds_what_was_put_in_and_not_taken_out() {
        let mut postings = Postings::default();
        let key = postings.key(Tag::Read, (1_u64, 2_u32));
        for id in 1..=3 {
            postings.insert(key, SpanId::from_hash(id));
        }
        postings.remove(key, SpanId::from_hash(2));
        assert_eq!(
            postings.get(key),
            Some([1, 3].map(SpanId::from_hash).as_slice())
        );
    }
}

//! YAML text as a tree of nodes that know their file and line.
//!
//! Built from the parser's events rather than from its ready tree, so that every
//! duplicate key is found and an alias bomb is stopped.

use super::report::{Place, Report};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes a file may have, aliases expanded.
const MAX_NODES: usize = 100_000;
/// Levels of nesting a file may have.
const MAX_DEPTH: usize = 64;

/// One value of the file.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// The text it was read from, where a reference or `--set` brought it: what counts where text
    /// is wanted.
    pub verbatim: Option<Arc<str>>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, number or truth value.
    Scalar(Scalar),
    /// `[a, b]`
    List(Vec<Node>),
    /// `{a: b}`, in the order of the file, unique keys.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// The value.
    pub node: Node,
}

/// Text that may stand for a number or a truth value.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text as written, without quotes.
    pub text: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written: decides what it may be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: what it looks like.
    Plain,
    /// In quotes, or a block: text only.
    Quoted,
}

impl Node {
    /// A value of a file.
    pub(super) fn new(place: Place, value: Value) -> Self {
        Self {
            place,
            value,
            verbatim: None,
        }
    }

    /// An empty map, as a missing section reads.
    pub fn empty(place: Place) -> Self {
        Self::new(place, Value::Null)
    }

    /// A text that a reference brought.
    pub(super) fn text(place: Place, text: String) -> Self {
        let verbatim = Some(Arc::from(text.as_str()));
        let style = Style::Quoted;
        Self {
            place,
            value: Value::Scalar(Scalar { text, style }),
            verbatim,
        }
    }

    /// Remembers the text that the node was read from.
    pub(super) fn keep_text(&mut self, text: &str) {
        self.verbatim = Some(Arc::from(text));
    }

    /// Says of the node and all below it that they stand there.
    pub(super) fn relocate(&mut self, place: &Place) {
        self.place.clone_from(place);
        match &mut self.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.relocate(place)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_place.clone_from(place);
                    entry.node.relocate(place);
                }
            }
        }
    }

    /// The entry of a map.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// All entries; none if this is no map.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Where the value under this path is named, or the nearest there is above it.
    pub fn place_of(&self, path: &[&str]) -> Place {
        let mut place = self.place.clone();
        let mut node = self;
        for part in path {
            node = match &node.value {
                Value::Map(_) => {
                    let Some(entry) = node.entry(part) else { break };
                    place = entry.key_place.clone();
                    &entry.node
                }
                Value::List(items) => {
                    let Some(item) = part
                        .parse::<usize>()
                        .ok()
                        .and_then(|index| items.get(index))
                    else {
                        break;
                    };
                    place = item.place.clone();
                    item
                }
                _ => break,
            };
        }
        place
    }

    /// What this is, for a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            // It may be a password that came to the wrong key.
            Value::Scalar(_) if self.verbatim.is_some() => "text".to_owned(),
            Value::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.clone(),
            Value::Scalar(scalar) => format!("{:?}", scalar.text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads the one document of a file. None: it is no YAML, and the report says why.
pub fn parse(file: &str, text: &str, report: &mut Report) -> Option<Node> {
    let file: Arc<str> = Arc::from(file);
    let mut builder = Builder {
        file: Arc::clone(&file),
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let place = Place {
                    file,
                    line: error.marker().line(),
                };
                report.error(&place, "", format!("not valid YAML: {}", error.info()));
                return None;
            }
        };
        if let Err(message) = builder.take(event, span, report) {
            report.error(
                &Place {
                    file,
                    line: span.start.line(),
                },
                "",
                message,
            );
            return None;
        }
    }
    let root = builder
        .root
        .unwrap_or_else(|| Node::empty(Place { file, line: 0 }));
    Some(root)
}

/// A list or map whose end has not come yet.
enum Open {
    List {
        node: Place,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        node: Place,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, Place)>,
    },
}

struct Builder {
    file: Arc<str>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span, report: &mut Report) -> Result<(), String> {
        let place = Place {
            file: Arc::clone(&self.file),
            line: span.start.line(),
        };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = scalar(text.into_owned(), style);
                self.add(Node::new(place, value), anchor, report)
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List {
                node: place,
                anchor,
                items: Vec::new(),
            }),
            Event::MappingStart(anchor, _) => self.open(Open::Map {
                node: place,
                anchor,
                entries: Vec::new(),
                key: None,
            }),
            Event::SequenceEnd | Event::MappingEnd => self.close(report),
            Event::Alias(anchor) => {
                let node = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or("alias to itself")?;
                self.nodes += count(&node);
                self.add(Node::new(place, node.value), 0, report)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err("more than one document in a file".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open) -> Result<(), String> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self, report: &mut Report) -> Result<(), String> {
        match self.stack.pop() {
            Some(Open::List {
                node,
                anchor,
                items,
            }) => self.add(Node::new(node, Value::List(items)), anchor, report),
            Some(Open::Map {
                node,
                anchor,
                entries,
                ..
            }) => {
                let value = Value::Map(merge_keys(entries));
                self.add(Node::new(node, value), anchor, report)
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, node: Node, anchor: usize, report: &mut Report) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some((key_text(&node)?, node.place)),
                Some((key, key_place)) => {
                    if let Some(first) =
                        entries.iter().find(|entry| entry.key == key && key != "<<")
                    {
                        let line = first.key_place.line;
                        report.error(
                            &key_place,
                            "",
                            format!("key \"{key}\" stands twice, first in line {line}"),
                        );
                        return Ok(());
                    }
                    entries.push(Entry {
                        key,
                        key_place,
                        node,
                    });
                }
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| count(&entry.node))
                .sum::<usize>()
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar {
        text,
        style: if plain { Style::Plain } else { Style::Quoted },
    })
}

fn key_text(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Scalar(scalar) => Ok(scalar.text.clone()),
        _ => Err(format!("expected a key, got {}", node.describe())),
    }
}

/// YAML 1.1 merge keys (`<<: *base`), which the Collector understands too.
fn merge_keys(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.iter().all(|entry| entry.key != "<<") {
        return entries;
    }
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    for merge in merges {
        let sources = match merge.node.value {
            Value::List(items) => items,
            _ => vec![merge.node],
        };
        for entry in sources.iter().flat_map(Node::entries) {
            if own.iter().all(|known| known.key != entry.key) {
                own.push(entry.clone());
            }
        }
    }
    own
}

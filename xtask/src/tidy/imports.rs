//! Which room may import which: the table of ARCHITECTURE.md, and whether the sources keep to it.
//!
//! The table is one fenced block that is marked `imports`:
//! ```text
//! [collector]
//! spans: protocols, streams
//! ```
//! A heading names a crate by its folder; a room is a module right below the crate's root. The
//! heading `[crates]` says which crates of this repository a crate may depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::Complaint;
use super::source::Source;

type Rooms = BTreeMap<String, BTreeSet<String>>;

/// The table: per crate, per room, who may be imported.
#[derive(Default)]
pub struct Table(BTreeMap<String, Rooms>);

impl Table {
    /// Reads the fenced blocks that are marked `imports`.
    pub fn read(file: &Path, text: &str) -> (Self, Vec<Complaint>) {
        let mut table = Self::default();
        let mut complaints = Vec::new();
        let mut inside = false;
        let mut heading = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("```") {
                inside = line == "```imports";
            } else if inside
                && let Some(name) = line
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'))
            {
                heading = Some(name.to_owned());
                table.0.entry(name.to_owned()).or_default();
            } else if inside && !line.is_empty() && !line.starts_with('#') {
                let rooms = heading.as_ref().and_then(|name| table.0.get_mut(name));
                if let (Some(rooms), Some((room, others))) = (rooms, line.split_once(':')) {
                    let others = others
                        .split(',')
                        .map(str::trim)
                        .filter(|other| !other.is_empty());
                    rooms.insert(room.trim().to_owned(), others.map(str::to_owned).collect());
                } else {
                    let text = "a line of the import table is `room: room, room` below a `[crate]`";
                    complaints.push(Complaint::new(file, number + 1, text));
                }
            }
        }
        if table.0.is_empty() {
            complaints.push(Complaint::new(
                file,
                1,
                "there is no fenced block marked `imports`",
            ));
        }
        (table, complaints)
    }

    /// The crates that a crate may depend on; `None` when the table says nothing of crates.
    pub fn crates(&self) -> Option<&Rooms> {
        self.0.get("crates")
    }

    /// Checks the imports of one file, unless its crate is not in the table.
    pub fn check(&self, root: &Path, source: &Source, complaints: &mut Vec<Complaint>) {
        let Some((folder, inside)) = split_at_src(&source.file) else {
            return;
        };
        let Some(rooms) = self.0.get(&folder) else {
            return;
        };
        let [room, ..] = &inside[..] else { return };
        let src = root.join(&folder).join("src");
        let is_room =
            |name: &str| src.join(name).is_dir() || src.join(name).with_extension("rs").is_file();
        let mut found = Vec::new();
        edges(source.tokens.clone(), inside.len(), &mut found);
        for (line, other) in found {
            if source.is_test(line) || other == *room || !is_room(&other) {
                continue;
            }
            let text = match rooms.get(room) {
                Some(allowed) if allowed.contains(&other) => continue,
                Some(_) => {
                    format!("room `{room}` may not import `{other}` (table in ARCHITECTURE.md)")
                }
                None => format!("room `{room}` is not in the import table of ARCHITECTURE.md"),
            };
            complaints.push(Complaint::new(&source.file, line, text));
        }
    }
}

/// `collector/src/spans/pair.rs` is `pair` in `spans` of `collector`; roots are in no room.
fn split_at_src(file: &Path) -> Option<(String, Vec<String>)> {
    let file = file.with_extension("");
    let text = file.to_string_lossy();
    let (folder, inside) = text.split_once("/src/")?;
    let mut inside: Vec<_> = inside.split('/').map(str::to_owned).collect();
    inside.pop_if(|last| last == "mod");
    let is_root = inside
        .first()
        .is_some_and(|first| ["main", "lib", "bin"].contains(&first.as_str()));
    Some((folder.to_owned(), if is_root { Vec::new() } else { inside }))
}

/// Finds `crate::room`, `crate::{room, room}`, and as many `super::` as lead to the crate's root.
fn edges(tokens: TokenStream, depth: usize, found: &mut Vec<(usize, String)>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut supers = 0;
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        if let TokenTree::Group(group) = &tokens[at] {
            edges(group.stream(), depth, found);
        }
        let to_root = match rest {
            [
                TokenTree::Ident(word),
                TokenTree::Punct(one),
                TokenTree::Punct(_),
                ..,
            ] if one.as_char() == ':' => {
                supers = if word == "super" { supers + 1 } else { 0 };
                at += 2;
                word == "crate" || (word == "super" && supers == depth)
            }
            _ => {
                supers = 0;
                false
            }
        };
        at += 1;
        match tokens.get(at) {
            Some(TokenTree::Ident(room)) if to_root => found.push(named(room)),
            Some(TokenTree::Group(group)) if to_root && group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let parts =
                    inner.split(|token| matches!(token, TokenTree::Punct(p) if p.as_char() == ','));
                for part in parts {
                    if let Some(TokenTree::Ident(room)) = part.first() {
                        found.push(named(room));
                    }
                }
            }
            _ => {}
        }
    }
}

fn named(room: &proc_macro2::Ident) -> (usize, String) {
    (room.span().start().line, room.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, depth: usize) -> Vec<String> {
        let mut found = Vec::new();
        edges(text.parse().unwrap(), depth, &mut found);
        found.into_iter().map(|(_, room)| room).collect()
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        assert_eq!(found("use crate::spans::Pair;", 1), ["spans"]);
        assert_eq!(
            found("use crate::{spans::{self, A}, streams, k8s as k};", 1),
            ["spans", "streams", "k8s"]
        );
        assert_eq!(
            found("fn f() { vec![crate::capture::open()] }", 1),
            ["capture"]
        );
        assert_eq!(found("use super::spans;", 1), ["spans"]);
        assert_eq!(found("use super::sibling;", 2), [""; 0]);
        assert_eq!(found("use super::super::spans;", 2), ["spans"]);
    }

    #[test]
    fn the_table_is_read_from_its_block_only() {
        let text =
            "a: b\n```imports\n[collector]\nspans: streams, protocols\npure:\n```\n```\nc: d\n```";
        let (table, complaints) = Table::read(Path::new("A.md"), text);
        assert!(complaints.is_empty());
        assert_eq!(table.0["collector"]["spans"].len(), 2);
        assert_eq!(table.0["collector"]["pure"].len(), 0);
        assert_eq!(table.0["collector"].len(), 2);
    }

    #[test]
    fn a_file_belongs_to_the_room_below_src() {
        let inside = |file| split_at_src(Path::new(file)).unwrap();
        assert_eq!(
            inside("collector/src/spans/mod.rs"),
            ("collector".into(), vec!["spans".into()])
        );
        assert_eq!(inside("crates/pipeline/src/otlp.rs").0, "crates/pipeline");
        assert!(inside("collector/src/main.rs").1.is_empty());
    }
}

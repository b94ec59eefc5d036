//! Whether a component's settings are the same in two readings of a configuration.

use super::node::{Node, Value};
use super::{ComponentId, Role};
use crate::component::ExporterSettings;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a section says, files and variables put in; lines and the order of keys do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// The fingerprint of every component of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints(BTreeMap<(Role, ComponentId), Fingerprint>);

impl Fingerprints {
    /// Of all components below the root, whether they can be read or not.
    pub(super) fn of(root: &Node) -> Self {
        let mut all = BTreeMap::new();
        for role in Role::ALL {
            let section = root.entry(role.section()).map(|entry| &entry.node);
            for entry in section.into_iter().flat_map(Node::entries) {
                if let Ok(id) = ComponentId::parse(&entry.key) {
                    all.insert((role, id), Fingerprint::of(&entry.node));
                }
            }
        }
        Self(all)
    }

    /// An exporter changes with the extension that it uses.
    pub(super) fn add_extension(
        &mut self,
        exporter: &ComponentId,
        settings: &dyn ExporterSettings,
    ) {
        let named = settings.extension();
        let Some(extension) = named.and_then(|(_, name)| ComponentId::parse(name).ok()) else {
            return;
        };
        let of_extension = self.get(Role::Extension, &extension);
        if let Some(own) = self.0.get_mut(&(Role::Exporter, exporter.clone())) {
            let mut hasher = DefaultHasher::new();
            (own.0, of_extension.0).hash(&mut hasher);
            *own = Fingerprint(hasher.finish());
        }
    }

    /// The fingerprint of a component. Those that are not there are all alike.
    pub fn get(&self, role: Role, id: &ComponentId) -> Fingerprint {
        let found = self.0.get(&(role, id.clone()));
        found.copied().unwrap_or_default()
    }
}

impl Fingerprint {
    fn of(node: &Node) -> Self {
        let mut hasher = DefaultHasher::new();
        feed(node, &mut hasher);
        Self(hasher.finish())
    }
}

fn feed(node: &Node, hasher: &mut DefaultHasher) {
    std::mem::discriminant(&node.value).hash(hasher);
    match &node.value {
        Value::Null => {}
        Value::Scalar(scalar) => {
            scalar.text.hash(hasher);
            std::mem::discriminant(&scalar.style).hash(hasher);
        }
        Value::List(items) => {
            items.len().hash(hasher);
            for item in items {
                feed(item, hasher);
            }
        }
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            sorted.len().hash(hasher);
            for entry in sorted {
                entry.key.hash(hasher);
                feed(&entry.node, hasher);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node;
    use crate::config::report::Report;

    fn fingerprint(yaml: &str) -> Fingerprint {
        Fingerprint::of(&node::parse("test.yaml", yaml, &mut Report::default()).unwrap())
    }

    #[test]
    fn it_changes_with_what_is_said_and_not_with_how() {
        let base = "{a: 1, b: [x, y], c: {d: null}}";
        let cases = [
            ("\n\n{b: [x, y], c: {d: ~}, a: 1} # the same", true),
            ("{a: 2, b: [x, y], c: {d: null}}", false),
            ("{a: '1', b: [x, y], c: {d: null}}", false),
            ("{a: 1, b: [y, x], c: {d: null}}", false),
            ("{a: 1, b: [x, y], c: {}}", false),
            ("{a: 1, b: [x, y]}", false),
        ];
        for (yaml, same) in cases {
            assert_eq!(fingerprint(base) == fingerprint(yaml), same, "{yaml}");
        }
    }
}

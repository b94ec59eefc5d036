//! One file laid over another, as the Collector does: mappings join key by key, everything else
//! (lists, values, nothing) is replaced. Every node keeps the file and line it came from.

use super::node::{Entry, Node, Value};
use super::report::Report;

/// `above` has the last word. A file without content changes nothing and is warned about.
pub(super) fn lay_over(base: Node, above: Node, report: &mut Report) -> Node {
    match (&base.value, &above.value) {
        (_, Value::Null) => {
            report.warn(&above.place, "", "the file is empty");
            base
        }
        (Value::Null, _) => {
            report.warn(&base.place, "", "the file is empty");
            above
        }
        _ => join(base, above),
    }
}

fn join(base: Node, above: Node) -> Node {
    match (base.value, above.value) {
        (Value::Map(mut entries), Value::Map(more)) => {
            for entry in more {
                put(&mut entries, entry);
            }
            Node::new(base.place, Value::Map(entries))
        }
        (_, value) => Node { value, ..above },
    }
}

/// A mapping in both files is named where it first stands; what replaces is named where it stands.
fn put(entries: &mut Vec<Entry>, above: Entry) {
    let Some(base) = entries.iter_mut().find(|entry| entry.key == above.key) else {
        entries.push(above);
        return;
    };
    let joined =
        matches!(base.node.value, Value::Map(_)) && matches!(above.node.value, Value::Map(_));
    if joined {
        let empty = Node::empty(base.node.place.clone());
        base.node = join(std::mem::replace(&mut base.node, empty), above.node);
    } else {
        *base = above;
    }
}

//! Spans that belong to one request, joined by what is surest first.

use crate::sets::Sets;
use span_model::SpanId;
use std::collections::HashMap;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Requests as roots, calls as what grows on them. Each tree has one root at most.
#[derive(Debug, Default)]
pub struct Forest {
    trees: Sets,
    /// The root of the tree that a span stands for.
    roots: Map<SpanId, SpanId>,
    branches: Map<SpanId, Vec<(SpanId, f32)>>,
}

impl Forest {
    /// Plants a request.
    pub fn plant(&mut self, request: SpanId) {
        self.roots.insert(request, request);
    }

    /// Joins spans in pairs, the surest pairs first; what would join two requests is left out.
    pub fn join(&mut self, mut pairs: Vec<(SpanId, SpanId, f32)>) {
        pairs.sort_by(|one, other| {
            let by_ids = (one.0, one.1).cmp(&(other.0, other.1));
            other.2.total_cmp(&one.2).then(by_ids)
        });
        for (one, other, sure) in pairs {
            let (top, under) = (self.trees.top(one), self.trees.top(other));
            let root = self.roots.get(&under).copied();
            if top == under || (root.is_some() && self.roots.contains_key(&top)) {
                continue;
            }
            self.trees.join(one, other);
            if let Some(root) = root {
                self.roots.insert(top, root);
            }
            self.branches.entry(one).or_default().push((other, sure));
            self.branches.entry(other).or_default().push((one, sure));
        }
    }

    /// Of every span that grows on a request: which one, and how sure all between them is.
    pub fn grown(&self) -> Map<SpanId, (SpanId, f32)> {
        let mut grown = Map::default();
        for request in self.roots.values() {
            let mut next = vec![(*request, 1.0)];
            while let Some((span, sure)) = next.pop() {
                if grown.insert(span, (*request, sure)).is_some() {
                    continue;
                }
                let branches = self.branches.get(&span).into_iter().flatten();
                let further = branches.filter(|(other, _)| !grown.contains_key(other));
                next.extend(further.map(|(other, branch)| (*other, sure * branch)));
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SpanId {
        SpanId::from_hash(number)
    }

    #[test]
    fn what_is_surest_decides_whom_a_span_grows_on() {
        let mut forest = Forest::default();
        forest.plant(id(1));
        forest.plant(id(2));
        forest.join(vec![
            (id(11), id(10), 0.9),
            (id(2), id(11), 0.8),
            (id(10), id(1), 0.95),
            (id(20), id(2), 0.5),
            (id(31), id(30), 1.0),
        ]);
        let grown = forest.grown();
        assert_eq!(grown.get(&id(10)), Some(&(id(1), 0.95)));
        assert_eq!(grown.get(&id(11)), Some(&(id(1), 0.95 * 0.9)));
        assert_eq!(grown.get(&id(20)), Some(&(id(2), 0.5)));
        assert_eq!(grown.get(&id(30)), None, "on no request");
    }
}

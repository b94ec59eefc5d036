//! Decisions that are remembered for late spans: so many, the longest unused goes first.

use std::collections::{HashMap, VecDeque};

/// Trace ids.
#[derive(Debug)]
pub(super) struct Remembered {
    capacity: usize,
    /// When each was used last.
    used: HashMap<Vec<u8>, u64>,
    /// In the order of use; entries that were used again since are stale.
    order: VecDeque<(u64, Vec<u8>)>,
    uses: u64,
}

impl Remembered {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            used: HashMap::new(),
            order: VecDeque::new(),
            uses: 0,
        }
    }

    pub fn insert(&mut self, id: Vec<u8>) {
        self.touch(id);
        while self.used.len() > self.capacity {
            let Some((use_number, id)) = self.order.pop_front() else {
                return;
            };
            if self.used.get(&id) == Some(&use_number) {
                self.used.remove(&id);
            }
        }
    }

    /// Whether it is there; then it counts as used.
    pub fn contains(&mut self, id: &[u8]) -> bool {
        let there = self.used.contains_key(id);
        if there {
            self.touch(id.to_vec());
        }
        there
    }

    fn touch(&mut self, id: Vec<u8>) {
        self.uses += 1;
        self.order.push_back((self.uses, id.clone()));
        self.used.insert(id, self.uses);
        // Stale entries must not pile up.
        if self.order.len() > 2 * self.capacity.max(16) {
            let used = &self.used;
            self.order
                .retain(|(number, id)| used.get(id) == Some(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_memory_is_bounded() {
        let mut remembered = Remembered::new(3);
        for id in [1, 2, 3] {
            remembered.insert(vec![id]);
        }
        assert!(remembered.contains(&[1]));
        remembered.insert(vec![4]);
        assert!(!remembered.contains(&[2]));
        assert!(
            remembered.contains(&[1]) && remembered.contains(&[3]) && remembered.contains(&[4])
        );
        for _ in 0..1_000 {
            assert!(remembered.contains(&[3]));
        }
        assert!(remembered.order.len() <= 32);
        remembered.insert(vec![5]);
        assert!(remembered.contains(&[3]) && !remembered.contains(&[1]));
    }
}

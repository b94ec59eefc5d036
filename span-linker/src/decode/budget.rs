//! What timing may cost: about half a core.

/// How often calls may be weighed against requests for each second of spans, of all processes
/// together. It takes about 2.5 µs, with all that follows from it.
const WORK_PER_SECOND: u64 = 200_000;

/// What was spent in the latest stretch of time.
#[derive(Debug)]
pub struct Budget {
    per_stretch: u64,
    stretch: u64,
    spent: u64,
}

impl Budget {
    /// Nothing is spent. A stretch is so long.
    pub fn new(stretch_ns: u64) -> Self {
        Self {
            per_stretch: WORK_PER_SECOND.saturating_mul(stretch_ns) / 1_000_000_000,
            stretch: 0,
            spent: 0,
        }
    }

    /// Spends it, or says that there is not enough. Stretches that come late are paid by the latest.
    pub fn affords(&mut self, stretch: u64, work: u64) -> bool {
        if stretch > self.stretch {
            (self.stretch, self.spent) = (stretch, 0);
        }
        let affords = self.spent + work <= self.per_stretch;
        if affords {
            self.spent += work;
        }
        affords
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_has_its_own_and_late_ones_have_none() {
        let mut budget = Budget::new(10_000_000);
        let affords = [(7, 1500), (7, 501), (7, 500), (8, 2000), (7, 1), (9, 2001)];
        let affords = affords.map(|(stretch, work)| budget.affords(stretch, work));
        assert_eq!(affords, [true, false, true, true, false, false]);
    }
}

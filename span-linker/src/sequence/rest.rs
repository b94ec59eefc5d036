//! When timing is tried in a process in which it only guesses: seldom, for it costs as much there
//! as where it helps, and more.

/// What may be wasted before it rests: calls weighed against requests.
const WASTE: u64 = 500_000;
/// How long it rests first, and at most; twice as long each time.
const FIRST_NS: u64 = 2_000_000_000;
const LONGEST_NS: u64 = 600_000_000_000;
/// Of fewer requests under way any two are about as hard to tell apart as any others.
const CROWD: usize = 16;

/// Tries and rests of one process.
#[derive(Debug, Default)]
pub struct Rest {
    /// Work since timing was believed last, or rested.
    wasted: u64,
    length_ns: u64,
    until_ns: u64,
    /// Requests under way in the stretch that is tried, and when it failed or else at most.
    crowd: usize,
    known_crowd: usize,
}

impl Rest {
    /// Whether a stretch may be tried. One with half as many requests under way as when it failed
    /// may be tried at once.
    pub fn may_try(&mut self, from_ns: u64, crowd: usize) -> bool {
        if from_ns < self.until_ns && crowd * 2 > self.known_crowd {
            return false;
        }
        self.crowd = crowd;
        true
    }

    /// There are far more requests under way than ever when it was believed.
    pub fn is_crowded(&self) -> bool {
        self.crowd * 2 > self.known_crowd * 3
    }

    /// So many more that what was true of few says little.
    pub fn is_another_crowd(&self) -> bool {
        self.crowd >= CROWD && self.is_crowded()
    }

    /// A stretch was tried with so much work, and timing may be believed or not. True if it rests
    /// from now on.
    pub fn begins_after(&mut self, until_ns: u64, work: u64, believed: bool) -> bool {
        self.known_crowd = self.known_crowd.max(self.crowd);
        if believed {
            (self.wasted, self.length_ns, self.until_ns) = (0, 0, 0);
            return false;
        }
        self.wasted += work;
        if self.wasted < WASTE {
            return false;
        }
        self.wasted = 0;
        self.length_ns = (self.length_ns * 2).clamp(FIRST_NS, LONGEST_NS);
        self.until_ns = until_ns.saturating_add(self.length_ns);
        self.known_crowd = self.crowd;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_rests_twice_as_long_after_each_waste_and_not_where_fewer_are_under_way() {
        let mut rest = Rest::default();
        let mut begun = Vec::new();
        for second in 0..2000 {
            if rest.may_try(second * SECOND, 8) && rest.begins_after(second * SECOND, WASTE, false)
            {
                begun.push(second);
            }
        }
        assert_eq!(begun, [0, 2, 6, 14, 30, 62, 126, 254, 510, 1022, 1622]);
        assert!(!rest.may_try(2000 * SECOND, 5) && rest.may_try(2000 * SECOND, 4));
        assert!(!rest.begins_after(2000 * SECOND, 1, true), "believed again");
        assert!(rest.may_try(2001 * SECOND, 8));
    }

    #[test]
    fn what_wastes_little_never_rests() {
        let mut rest = Rest::default();
        for second in 0..WASTE - 1 {
            assert!(rest.may_try(second, 1) && !rest.begins_after(second, 1, false));
        }
    }
}

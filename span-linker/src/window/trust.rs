//! How far thread evidence can be trusted in one process.
//!
//! A blocking server and an event loop keep a request on one thread; Go,
//! work-stealing runtimes and hand-off pools do not, and there a thread id
//! names some other request as often as the right one. Three measurements tell
//! them apart, none of which needs to know the language:
//! - affinity: the thread that read a request also writes its response;
//! - exact: where headers or tokens tell the parent, the rung says the same;
//! - nesting: the call that the rung gives to a request ends before the request.
//!
//! Nesting errs towards trust (a wrong parent often encloses the call too) and,
//! for work that outlives its request, against it; its limit is wider.

use super::link::Method;

/// Least share of requests read and answered by the same thread.
const AFFINITY_LIMIT_PERCENT: u32 = 98;
/// Least share of links that agree with exact ones.
const EXACT_LIMIT_PERCENT: u32 = 98;
/// Least share of links that end before their parent.
const NESTING_LIMIT_PERCENT: u32 = 90;
/// Bad samples that prove nothing yet.
const GRACE: u32 = 2;
/// Agreements after which a rung that is not trusted by default is.
const PROVEN: u32 = 20;
/// Tallies are halved here, so that a process can change its ways.
const MEMORY: u32 = 4096;

/// Good and bad samples of one measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    good: u32,
    bad: u32,
}

impl Tally {
    /// Adds a sample.
    pub fn add(&mut self, good: bool) {
        if self.good + self.bad >= MEMORY {
            self.good /= 2;
            self.bad /= 2;
        }
        if good { self.good += 1 } else { self.bad += 1 }
    }

    /// Nothing speaks against it: too few bad samples, or a share of good ones above the limit.
    fn holds(self, limit_percent: u32) -> bool {
        self.bad <= GRACE + (self.good + self.bad) * (100 - limit_percent) / 100
    }

    fn is_proven(self, limit_percent: u32) -> bool {
        self.good >= PROVEN && self.holds(limit_percent)
    }
}

/// The measurements of one process.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    affinity: Tally,
    exact: [Tally; Method::ALL.len()],
    nesting: [Tally; Method::ALL.len()],
}

impl Trust {
    /// A request was read and answered, by the same thread or not.
    pub fn saw_request(&mut self, same_thread: bool) {
        self.affinity.add(same_thread);
    }

    /// An exact rung knew the parent, and this one said the same or not.
    pub fn saw_exact(&mut self, method: Method, agrees: bool) {
        add(self.exact.get_mut(method as usize), agrees);
    }

    /// A call that this rung gave to a request ended within it or not.
    pub fn saw_nesting(&mut self, method: Method, nested: bool) {
        add(self.nesting.get_mut(method as usize), nested);
    }

    /// The rung's claims count in this process.
    pub fn trusts(&self, method: Method) -> bool {
        let exact = self
            .exact
            .get(method as usize)
            .is_none_or(|tally| tally.holds(EXACT_LIMIT_PERCENT));
        let nested = self
            .nesting
            .get(method as usize)
            .is_none_or(|tally| tally.holds(NESTING_LIMIT_PERCENT));
        match method {
            Method::ThreadOrder | Method::Thread => {
                exact && nested && self.affinity.holds(AFFINITY_LIMIT_PERCENT)
            }
            Method::OnlyOpen => exact,
            _ => true,
        }
    }

    /// Exact links have confirmed the rung often enough to trust a weak one.
    pub fn is_proven(&self, method: Method) -> bool {
        self.exact
            .get(method as usize)
            .is_some_and(|tally| tally.is_proven(EXACT_LIMIT_PERCENT))
    }
}

fn add(tally: Option<&mut Tally>, good: bool) {
    if let Some(tally) = tally {
        tally.add(good);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_moves_requests_between_threads_loses_trust_in_its_threads() {
        let mut trust = Trust::default();
        for _ in 0..10 {
            trust.saw_request(true);
        }
        assert!(trust.trusts(Method::Thread));
        for _ in 0..3 {
            trust.saw_request(false);
        }
        assert!(!trust.trusts(Method::Thread) && !trust.trusts(Method::ThreadOrder));
        assert!(trust.trusts(Method::Tokens));
        for _ in 0..300 {
            trust.saw_request(true);
        }
        assert!(trust.trusts(Method::Thread), "a process can mend its ways");
    }

    #[test]
    fn one_rung_loses_trust_without_the_other() {
        let mut trust = Trust::default();
        for _ in 0..3 {
            trust.saw_exact(Method::Thread, false);
            trust.saw_exact(Method::ThreadOrder, true);
        }
        assert!(!trust.trusts(Method::Thread));
        assert!(trust.trusts(Method::ThreadOrder));
    }

    #[test]
    fn a_weak_rung_is_proven_by_exact_links_only() {
        let mut trust = Trust::default();
        for _ in 0..PROVEN {
            assert!(!trust.is_proven(Method::OnlyOpen));
            trust.saw_exact(Method::OnlyOpen, true);
        }
        assert!(trust.is_proven(Method::OnlyOpen));
    }

    #[test]
    fn old_samples_fade() {
        let mut tally = Tally::default();
        for _ in 0..MEMORY * 3 {
            tally.add(true);
        }
        assert!(tally.good <= MEMORY);
    }
}

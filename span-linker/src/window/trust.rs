//! How far thread evidence can be trusted in one process.
//!
//! A blocking server and an event loop keep a request on one thread; Go,
//! work-stealing runtimes and hand-off pools do not, and there a thread id
//! names some other request as often as the right one. Four measurements tell
//! them apart, none of which needs to know the language:
//! - affinity: the thread that read a request also writes its response;
//! - returns: what the thread read before it wrote a response leads, read by read, back to the
//!   request that this response answers;
//! - exact: where headers or tokens tell the parent, the rung says the same;
//! - nesting: the call that the rung gives to a request ends before the request.
//!
//! Returns are what shows a loop that first reads all that is there and then works on it, as
//! Python's asyncio does: it never leaves its thread, and yet what it read last is some other
//! request's. They count while several requests are open, for one alone always leads back.
//!
//! Where fewer do than threads would have to be believed, some kinds of reads and writes may still
//! belong together (`hops`).
//!
//! Nesting errs towards trust (a wrong parent often encloses the call too) and,
//! for work that outlives its request, against it; its limit is wider, and where returns prove
//! the order of a thread right, calls that outlive their request are taken for what they are.
//!
//! Hand-offs between threads (`hand_off`, `hand_back`) are not trusted until proven, and that only
//! while several requests are open: in a process whose threads share one lock (Python's GIL) every
//! wake-up looks like a hand-off, and with one request it would always be the right one. Two
//! measurements: a response that was handed back should not be one that its reader's own thread had
//! asked for, for another request; and whom a call was taken from should be whom its response was
//! handed back to. A pool whose workers find their next task waiting fails the second alone: there
//! the last to have woken a worker is not who made its task.
//!
//! Goroutines are believed while what they join holds one request at a time, whose turn it was only
//! once it is proven by what they join, and by the last calls, for it depends on the load.
//!
//! Words of the payload are believed for kinds of calls of which nine in ten carry on a word of some
//! request that is being served: where the true parent had brought none, most would match nothing.
//!
//! "Only one request was open" is not trusted until proven, by exact links or by
//! idleness: a process that is idle half of the time, and makes calls only while
//! it serves, makes them for what it serves. Background work would show in the
//! idle half. Time with two requests counts twice as busy, which errs towards distrust.

use super::FastMap;
use super::link::Method;

/// Least share of requests read and answered by the same thread.
const AFFINITY_LIMIT_PERCENT: u32 = 98;
/// Least share of responses that lead back to their request.
const RETURNS_LIMIT_PERCENT: u32 = 97;
/// Least share of requests that goroutines keep apart: two that they take for one are the fault of one
/// step of many.
const GOROUTINES_LIMIT_PERCENT: u32 = 90;
/// Least share of calls whose turn it was: 99 % in a loaded process, half in one that is often idle,
/// whose idle processors take from each other's queues. Of the last so many, for loads change.
const TURNS_LIMIT_PERCENT: u32 = 97;
const TURNS_MEMORY: u32 = 256;
/// Least share of links that agree with exact ones.
const EXACT_LIMIT_PERCENT: u32 = 98;
/// Least share of links that end before their parent.
const NESTING_LIMIT_PERCENT: u32 = 90;
/// Least share of responses handed back that no thread claims for another request: 0.8 % of those
/// of a Java pool at 64 in flight and 3.4 % at 256 were wake-ups by a lock.
const HAND_BACK_LIMIT_PERCENT: u32 = 95;
/// Least share of calls handed off by the request that they are handed back to.
const HAND_OFF_LIMIT_PERCENT: u32 = 97;
/// Least share of the calls of a kind that carry on a word of an open request, and kinds that are
/// remembered; with more, all are forgotten.
const CARRIES_ON_LIMIT_PERCENT: u32 = 90;
const MAX_KINDS: usize = 256;
/// Least share of calls made while serving, for a process without background work.
const SERVING_LIMIT_PERCENT: u32 = 98;
/// Business is measured over up to this long: 10 minutes.
const BUSINESS_MEMORY_NS: u64 = 600_000_000_000;
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
        self.add_to_last(MEMORY, good);
    }

    /// Adds a sample to about the last so many.
    fn add_to_last(&mut self, memory: u32, good: bool) {
        if self.good + self.bad >= memory {
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
        let (bad, all) = (u64::from(self.bad), u64::from(self.good + self.bad));
        self.good >= PROVEN && bad * 100 <= all * u64::from(100 - limit_percent)
    }
}

/// The measurements of one process.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    affinity: Tally,
    /// Responses that led back to their request, among several, and alone too.
    returns: Tally,
    all_returns: Tally,
    /// Calls whose response was handed back among several requests, and not against threads.
    handed_back: Tally,
    /// Calls that were handed off, among several requests, by whom they are handed back to.
    handed_off: Tally,
    /// Requests that goroutines keep apart from others.
    goroutines: Tally,
    /// Calls that goroutines know the request of, by whose turn it was.
    turns: Tally,
    /// Calls of each kind that carry on a word of an open request.
    carried_on: FastMap<u32, Tally>,
    exact: [Tally; Method::ALL.len()],
    nesting: [Tally; Method::ALL.len()],
    /// Calls made while at least one request was served.
    serving: Tally,
    business: Business,
}

/// How goroutines did in a stretch.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Of each request, whether they join it with no other.
    pub alone: Vec<bool>,
    /// Of calls, whether whose turn it was is whom they join the call with.
    pub turns: Vec<bool>,
}

/// How much of its time a process serves.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "units last in names")]
struct Business {
    since_ns: u64,
    until_ns: u64,
    serving_ns: u64,
}

impl Business {
    fn add(&mut self, start_ns: u64, end_ns: u64) {
        if self.until_ns == 0 {
            self.since_ns = start_ns;
        }
        self.since_ns = self.since_ns.min(start_ns);
        self.until_ns = self.until_ns.max(end_ns);
        self.serving_ns = self
            .serving_ns
            .saturating_add(end_ns.saturating_sub(start_ns));
        let span_ns = self.until_ns - self.since_ns;
        if span_ns > BUSINESS_MEMORY_NS {
            self.since_ns += span_ns / 2;
            self.serving_ns /= 2;
        }
    }

    fn is_idle_half_of_the_time(self) -> bool {
        self.serving_ns <= (self.until_ns - self.since_ns) / 2
    }
}

impl Trust {
    /// A request was read and answered, by the same thread or not.
    pub fn saw_threads(&mut self, same: bool) {
        self.affinity.add(same);
    }

    /// What was read before a response led back to its request or not, with `rivals` or without.
    pub fn saw_return(&mut self, leads_back: bool, rivals: bool) {
        self.all_returns.add(leads_back);
        if rivals {
            self.returns.add(leads_back);
        }
    }

    /// A call's response was handed back, while several requests were open, and no thread claims the
    /// call for another request, or one does.
    pub fn saw_hand_back(&mut self, agrees: bool) {
        self.handed_back.add(agrees);
    }

    /// A call was handed off, while several requests were open, by the request that its response
    /// was handed back to, or by another one.
    pub fn saw_hand_off(&mut self, agrees: bool) {
        self.handed_off.add(agrees);
    }

    /// How goroutines did in a stretch.
    pub fn saw_goroutines(&mut self, measured: &Measured) {
        for alone in &measured.alone {
            self.goroutines.add(*alone);
        }
        for agrees in &measured.turns {
            self.turns.add_to_last(TURNS_MEMORY, *agrees);
        }
    }

    /// Whose turn it is tells whom a call is for, in this process and at its load of late.
    pub fn trusts_turns(&self) -> bool {
        self.turns.is_proven(TURNS_LIMIT_PERCENT)
    }

    /// A call of this kind carries on a word of an open request, or has others.
    pub fn saw_words(&mut self, kind: u32, carries_on: bool) {
        if self.carried_on.len() >= MAX_KINDS && !self.carried_on.contains_key(&kind) {
            self.carried_on.clear();
        }
        self.carried_on.entry(kind).or_default().add(carries_on);
    }

    /// Calls of this kind carry on words of the requests that they are made for.
    pub fn carries_on(&self, kind: u32) -> bool {
        let tally = self.carried_on.get(&kind);
        tally.is_some_and(|tally| tally.is_proven(CARRIES_ON_LIMIT_PERCENT))
    }

    /// A request was served from then to then.
    pub fn saw_request(&mut self, start_ns: u64, end_ns: u64) {
        self.business.add(start_ns, end_ns);
    }

    /// A call was made while a request was being served, or not.
    pub fn saw_call(&mut self, serving: bool) {
        self.serving.add(serving);
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
        let affinity = self.affinity.holds(AFFINITY_LIMIT_PERCENT);
        match method {
            Method::ThreadOrder => {
                let returns = self.returns.holds(RETURNS_LIMIT_PERCENT);
                let proven = self.all_returns.is_proven(RETURNS_LIMIT_PERCENT);
                exact && affinity && returns && (nested || proven)
            }
            Method::Goroutine => exact && self.goroutines.holds(GOROUTINES_LIMIT_PERCENT),
            Method::Thread => exact && nested && affinity,
            Method::Payload => exact && nested,
            Method::HandBack => exact && nested && affinity && self.hands_back(),
            Method::HandOff => {
                let proven = self.handed_off.is_proven(HAND_OFF_LIMIT_PERCENT);
                exact && nested && affinity && proven && self.hands_back()
            }
            Method::OnlyOpen | Method::QueueOrder => exact,
            _ => true,
        }
    }

    fn hands_back(&self) -> bool {
        self.handed_back.is_proven(HAND_BACK_LIMIT_PERCENT)
    }

    /// Exact links have confirmed "only one request was open" often enough.
    pub fn only_open_agrees_with_exact(&self) -> bool {
        let tally = self.exact.get(Method::OnlyOpen as usize);
        tally.is_some_and(|tally| tally.is_proven(EXACT_LIMIT_PERCENT))
    }

    /// The process has been idle enough to show background work, and there was none.
    pub fn calls_only_while_serving(&self) -> bool {
        self.business.is_idle_half_of_the_time() && self.serving.is_proven(SERVING_LIMIT_PERCENT)
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
            trust.saw_threads(true);
        }
        assert!(trust.trusts(Method::Thread));
        for _ in 0..3 {
            trust.saw_threads(false);
        }
        assert!(!trust.trusts(Method::Thread) && !trust.trusts(Method::ThreadOrder));
        assert!(trust.trusts(Method::Tokens));
        for _ in 0..300 {
            trust.saw_threads(true);
        }
        assert!(trust.trusts(Method::Thread), "a process can mend its ways");
    }

    #[test]
    fn a_loop_that_reads_ahead_loses_trust_in_its_order_once_requests_overlap() {
        let mut trust = Trust::default();
        for _ in 0..100 {
            trust.saw_return(true, false);
        }
        assert!(trust.trusts(Method::ThreadOrder));
        for _ in 0..3 {
            trust.saw_return(false, true);
        }
        assert!(!trust.trusts(Method::ThreadOrder) && trust.trusts(Method::Thread));
    }

    #[test]
    fn calls_may_outlast_their_requests_where_returns_prove_the_order() {
        let mut trust = Trust::default();
        for _ in 0..PROVEN {
            trust.saw_nesting(Method::ThreadOrder, false);
        }
        assert!(!trust.trusts(Method::ThreadOrder));
        for _ in 0..PROVEN {
            trust.saw_return(true, false);
        }
        assert!(trust.trusts(Method::ThreadOrder));
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
    fn hand_offs_are_believed_once_they_are_proven_and_only_while_threads_stand_for_requests() {
        let mut trust = Trust::default();
        for _ in 0..PROVEN {
            assert!(!trust.trusts(Method::HandBack));
            trust.saw_hand_back(true);
        }
        assert!(trust.trusts(Method::HandBack) && !trust.trusts(Method::HandOff));
        for _ in 0..PROVEN {
            trust.saw_hand_off(true);
        }
        assert!(trust.trusts(Method::HandOff));
        trust.saw_hand_off(false);
        assert!(!trust.trusts(Method::HandOff) && trust.trusts(Method::HandBack));
        for _ in 0..3 {
            trust.saw_threads(false);
        }
        assert!(!trust.trusts(Method::HandBack));
    }

    #[test]
    fn threads_that_share_a_lock_hand_nothing_on() {
        let mut trust = Trust::default();
        for n in 0..1000 {
            trust.saw_hand_back(n % 10 != 0);
            trust.saw_hand_off(true);
        }
        assert!(!trust.trusts(Method::HandBack) && !trust.trusts(Method::HandOff));
    }

    #[test]
    fn the_only_open_request_is_proven_by_exact_links() {
        let mut trust = Trust::default();
        for _ in 0..PROVEN {
            assert!(!trust.only_open_agrees_with_exact());
            trust.saw_exact(Method::OnlyOpen, true);
        }
        assert!(trust.only_open_agrees_with_exact());
    }

    #[test]
    fn the_only_open_request_is_proven_by_idleness_without_background_work() {
        let check = |busy_ns: u64, background: u64, expected: bool| {
            let mut trust = Trust::default();
            for n in 0..100 {
                trust.saw_request(n * 1000, n * 1000 + busy_ns);
                trust.saw_call(n >= background);
            }
            assert_eq!(
                trust.calls_only_while_serving(),
                expected,
                "{busy_ns} {background}"
            );
        };
        check(300, 0, true);
        check(300, 2, true);
        check(300, 3, false);
        check(900, 0, false);
    }

    #[test]
    fn business_long_ago_fades() {
        let mut business = Business::default();
        let minute = BUSINESS_MEMORY_NS / 10;
        business.add(0, 9 * minute);
        assert!(!business.is_idle_half_of_the_time());
        for n in 10..60 {
            business.add(n * minute, n * minute + 1);
        }
        assert!(business.is_idle_half_of_the_time());
    }

    #[test]
    fn calls_that_outlast_their_requests_too_often_cost_trust() {
        let mut trust = Trust::default();
        for n in 0..100 {
            trust.saw_nesting(Method::ThreadOrder, n % 10 != 0);
            trust.saw_nesting(Method::Thread, n % 5 != 0);
        }
        assert!(trust.trusts(Method::ThreadOrder));
        assert!(!trust.trusts(Method::Thread));
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

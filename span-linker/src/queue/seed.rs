//! Which writes follow which reads, and how many rounds later, found without knowing whose
//! they are.
//!
//! How many writes of a kind a round has is taken for a sum over the reads of the rounds before:
//! so many times what was read of each kind, so many rounds ago. The best such sum (writes taken
//! for Poisson distributed) is found by multiplicative steps (Richardson 1972, Lucy 1974), which
//! lead to the one best there is from wherever they begin. Where a process does not work in rounds
//! the sums mean little, which responses then show (`walk`).

use super::steps::Step;
use std::collections::{BTreeMap, HashMap};

/// Rounds looked back.
pub const LAGS: usize = 12;
/// Kinds of reads, and of writes; those that are rarer than so many others are left out.
const MAX_KINDS: usize = 16;
/// Steps towards the best sum; after 50 the shares change by less than 0.01 on aiohttp.
const ROUNDS: usize = 60;
/// Where the search begins: less for rounds that are longer ago.
const FIRST_SHARE: f32 = 0.3;
const FIRST_DECAY: f32 = 0.7;
/// Writes of a round that nothing explains.
const UNEXPLAINED: f32 = 0.001;

/// Writes that follow one read, by kinds and rounds between.
#[derive(Debug, Default)]
pub struct Seed {
    shares: HashMap<(u32, u32), [f32; LAGS]>,
}

type Counts = BTreeMap<u32, Vec<(usize, f32)>>;

impl Seed {
    /// From all steps of some time.
    pub fn of(steps: &[Step]) -> Self {
        let first = steps.first().map_or(0, |step| step.round);
        let rounds = steps.last().map_or(0, |step| step.round - first + 1) as usize;
        let count = |reads: bool| -> Counts {
            let mut counts = Counts::new();
            for step in steps.iter().filter(|step| step.what.is_read() == reads) {
                let round = (step.round - first) as usize;
                let of_kind = counts.entry(step.kind).or_default();
                match of_kind.last_mut().filter(|(last, _)| *last == round) {
                    Some((_, count)) => *count += 1.0,
                    None => of_kind.push((round, 1.0)),
                }
            }
            most_frequent(counts)
        };
        let (reads, writes) = (count(true), count(false));
        let mut seed = Self::default();
        for (write, counts) in &writes {
            for (read, shares) in fit(&reads, counts, rounds) {
                seed.shares.insert((read, *write), shares);
            }
        }
        seed
    }

    /// Writes of a kind that follow one read so many rounds later, on average; and how many from
    /// then on.
    pub fn shares(&self, read: u32, write: u32, lag: usize) -> Option<(f32, f32, f32)> {
        let shares = self.shares.get(&(read, write))?;
        let share = *shares.get(lag)?;
        let later = shares.iter().skip(lag).sum();
        Some((share, later, shares.iter().sum()))
    }
}

fn most_frequent(mut counts: Counts) -> Counts {
    if counts.len() > MAX_KINDS {
        let mut sizes: Vec<usize> = counts.values().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let least = sizes.get(MAX_KINDS - 1).copied().unwrap_or(0);
        counts.retain(|_, of_kind| of_kind.len() > least);
    }
    counts
}

fn fit(reads: &Counts, writes: &[(usize, f32)], rounds: usize) -> Vec<(u32, [f32; LAGS])> {
    let mut begin = [FIRST_SHARE; LAGS];
    for (place, power) in begin.iter_mut().zip(0..) {
        *place *= FIRST_DECAY.powi(power);
    }
    let mut shares: Vec<(u32, [f32; LAGS])> = reads.keys().map(|kind| (*kind, begin)).collect();
    let totals: Vec<f32> = reads
        .values()
        .map(|counts| counts.iter().map(|(_, count)| count).sum::<f32>().max(1.0))
        .collect();
    let mut expected = vec![0.0; rounds];
    let mut ratios = vec![0.0; rounds];
    for _ in 0..ROUNDS {
        expected.fill(UNEXPLAINED);
        for ((_, shares), counts) in shares.iter().zip(reads.values()) {
            for (round, count) in counts {
                let rounds = expected.iter_mut().skip(*round);
                for (sum, share) in rounds.zip(shares) {
                    *sum += share * count;
                }
            }
        }
        ratios.fill(0.0);
        for (round, count) in writes {
            if let (Some(ratio), Some(sum)) = (ratios.get_mut(*round), expected.get(*round)) {
                *ratio = count / sum;
            }
        }
        for (((_, shares), counts), total) in shares.iter_mut().zip(reads.values()).zip(&totals) {
            let mut gains = [0.0; LAGS];
            for (round, count) in counts {
                for (gain, ratio) in gains.iter_mut().zip(ratios.iter().skip(*round)) {
                    *gain += ratio * count;
                }
            }
            for (share, gain) in shares.iter_mut().zip(gains) {
                *share *= gain / total;
            }
        }
    }
    shares
}

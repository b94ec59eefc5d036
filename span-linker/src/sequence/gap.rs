//! Gaps between the events of a request, on a logarithmic scale.
//!
//! Eight bins an octave from 1 µs to over a minute: a gap is known to about 9 %, which is
//! finer than the gaps of any program repeat.

/// Bins an octave, as a power of two.
const FRACTION_BITS: u32 = 3;
/// Gaps are told apart from about 1 µs on.
const FLOOR_BITS: u32 = 10;
/// Number of bins; the last one takes everything longer.
pub const BINS: usize = 208;
/// How far a sample is smeared, in bins to each side: small samples must not leave holes.
const SMEAR: usize = 3;

/// The bin of a gap in ns.
pub fn bin(gap_ns: u64) -> usize {
    let shifted = gap_ns.saturating_add(1 << FLOOR_BITS);
    let octave = shifted.ilog2();
    let fraction = (shifted >> (octave - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1);
    let octaves = u64::from(octave - FLOOR_BITS) << FRACTION_BITS;
    usize::try_from(octaves + fraction).map_or(BINS - 1, |bin| bin.min(BINS - 1))
}

/// How many ns a bin covers.
fn width_ns(bin: usize) -> f32 {
    let octave = u32::try_from(bin >> FRACTION_BITS).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let width = (1_u64 << (octave + FLOOR_BITS - FRACTION_BITS)) as f32;
    width
}

/// How often gaps of each length were seen, smeared a little.
#[derive(Clone, Debug)]
pub struct Histogram {
    weight: f32,
    bins: Box<[f32; BINS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            weight: 0.0,
            bins: Box::new([0.0; BINS]),
        }
    }
}

impl Histogram {
    /// Adds a gap.
    pub fn add(&mut self, gap_ns: u64, weight: f32) {
        self.weight += weight;
        let centre = bin(gap_ns);
        // A triangle: 1, 2, 3, 4, 3, 2, 1.
        for (step, share) in (0_u8..).zip([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]) {
            let place = (centre + usize::from(step)).saturating_sub(SMEAR);
            if let Some(bin) = self.bins.get_mut(place.min(BINS - 1)) {
                *bin += weight * share / 16.0;
            }
        }
    }

    /// Forgets half.
    pub fn halve(&mut self) {
        self.weight /= 2.0;
        self.bins.iter_mut().for_each(|bin| *bin /= 2.0);
    }

    /// Probability of each bin: this histogram's, leaning on `prior` with a weight.
    pub fn blend(&self, prior: &mut [f32; BINS], prior_weight: f32) {
        let whole = self.weight + prior_weight;
        for (prior, bin) in prior.iter_mut().zip(self.bins.iter()) {
            *prior = (*bin + *prior * prior_weight) / whole;
        }
    }
}

/// Probability of each bin while nothing is known.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
pub const ANY_GAP: f32 = 1.0 / BINS as f32;

/// Log-density per ns of a gap that falls into this bin with this probability.
pub fn log_density(bin: usize, probability: f32) -> f32 {
    (probability / width_ns(bin)).ln()
}

/// How likely a gap of each bin is.
///
/// A logarithm costs more than all that leads up to it, and few bins are ever asked for: each
/// is turned into one when it is asked for first.
#[derive(Clone, Debug)]
pub struct Table {
    /// Probabilities, or log-densities of the bins in `logs`.
    bins: [f32; BINS],
    /// One bit a bin.
    logs: [u64; BINS.div_ceil(64)],
}

impl Table {
    /// A table of bins with these probabilities, times a factor.
    pub fn new(mut probabilities: [f32; BINS], factor: f32) -> Self {
        for bin in &mut probabilities {
            *bin *= factor;
        }
        Self {
            bins: probabilities,
            logs: [0; BINS.div_ceil(64)],
        }
    }

    /// Log-density per ns of a gap of this bin.
    pub fn log_density(&mut self, bin: usize) -> f32 {
        let (Some(value), Some(logs)) = (self.bins.get_mut(bin), self.logs.get_mut(bin / 64))
        else {
            return f32::MIN;
        };
        let bit = 1 << (bin % 64);
        if *logs & bit == 0 {
            *logs |= bit;
            *value = log_density(bin, *value);
        }
        *value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_gaps_never_fall_into_earlier_bins_and_all_bins_have_their_width() {
        let mut last = 0;
        for gap in (0..100_000)
            .step_by(7)
            .chain((17..64).map(|bits| 1 << bits))
        {
            let bin = bin(gap);
            assert!(bin >= last && bin < BINS, "{gap}: {bin} after {last}");
            last = bin;
        }
        assert_eq!(last, BINS - 1);
        let first_of = |wanted: usize| (0..1 << 20).find(|gap| bin(*gap) == wanted).unwrap_or(0);
        for index in [0, 5, 8, 30, 60] {
            let width = f64::from(u32::try_from(first_of(index + 1) - first_of(index)).unwrap());
            assert!((width - f64::from(width_ns(index))).abs() < 1.0, "{index}");
        }
    }

    #[test]
    fn a_density_sums_to_one_and_is_highest_where_the_samples_are() {
        let mut histogram = Histogram::default();
        for n in 0..100 {
            histogram.add(50_000 + n * 10, 1.0);
        }
        let mut probabilities = [ANY_GAP; BINS];
        histogram.blend(&mut probabilities, 2.0);
        let sum: f32 = probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 0.001, "{sum}");
        let mut table = Table::new(probabilities, 1.0);
        let mut log = |gap| table.log_density(bin(gap));
        let first = log(50_000);
        assert!(first > log(80_000) + 3.0);
        assert!(first > log(20_000) + 3.0);
        assert!((first - log(50_000)).abs() < f32::EPSILON, "asked again");
    }
}

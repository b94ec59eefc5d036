//! Consistent probability sampling (OpenTelemetry specification, trace/tracestate-probability-sampling.md).
//!
//! A trace has 56 random bits, R; a sampler has a threshold of rejection, T; it keeps the
//! trace if R >= T. A sampler with a higher probability keeps all that one with a lower keeps.

/// Randomness and thresholds have 56 bits: 14 hexadecimal digits.
pub(super) const BITS: u32 = 56;
const DIGITS: usize = 14;
/// One above the highest randomness.
const RANGE: u64 = 1 << BITS;
#[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
const RANGE_FLOAT: f64 = RANGE as f64;

/// The smallest probability above 0 that a threshold can express.
pub(super) const MIN_PROBABILITY: f64 = 1.0 / RANGE_FLOAT;

/// 56 random bits of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Randomness(u64);

/// Traces whose randomness is below are rejected; `RANGE` rejects all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Threshold(u64);

impl Randomness {
    /// The low 56 bits of a trace id; None: it is none, or all zero.
    pub fn of_trace_id(id: &[u8]) -> Option<Self> {
        let id: [u8; 16] = id.try_into().ok()?;
        let [_, _, _, _, _, _, _, _, low @ ..] = id;
        let bits = u64::from_be_bytes(low) & (RANGE - 1);
        (id != [0; 16]).then_some(Self(bits))
    }

    /// From bits, of which the low 56 count.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & (RANGE - 1))
    }

    /// Reads `rv`: exactly 14 digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == DIGITS).then(|| hex(text).map(Self))?
    }

    /// As `rv` stands in a trace state.
    pub fn text(self) -> String {
        format!("{:014x}", self.0)
    }
}

impl Threshold {
    pub const ALWAYS: Self = Self(0);
    pub const NEVER: Self = Self(RANGE);

    /// From a threshold with 56 bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits.min(RANGE))
    }

    /// Reads `th`: up to 14 digits, zeros at the end left out.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > DIGITS {
            return None;
        }
        let missing = DIGITS - text.len();
        hex(text).map(|bits| Self(bits << (4 * missing)))
    }

    /// As `th` stands in a trace state. Nothing expresses `NEVER`: such a span is not kept.
    pub fn text(self) -> String {
        let digits = format!("{:014x}", self.0);
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { "0" } else { digits }.to_owned()
    }

    pub fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }

    #[expect(clippy::cast_precision_loss, reason = "a probability is a double")]
    pub fn probability(self) -> f64 {
        (RANGE - self.0) as f64 / RANGE_FLOAT
    }

    /// For a probability from 0 to 1, rounded to so many significant digits.
    pub fn of_probability(probability: f64, precision: u32) -> Self {
        if probability >= 1.0 {
            return Self::ALWAYS;
        }
        if probability < MIN_PROBABILITY {
            return Self::NEVER;
        }
        // Digits at the front that are zero in the rejection do not count as significant.
        let mut digits = precision.max(1);
        let mut rejection = (1.0 - probability) * 16.0;
        while rejection < 1.0 && digits < BITS / 4 {
            rejection *= 16.0;
            digits += 1;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^56"
        )]
        let kept = (probability * RANGE_FLOAT).round() as u64;
        let exact = RANGE - kept.min(RANGE);
        let shift = BITS - 4 * digits.min(BITS / 4);
        if shift == 0 {
            return Self(exact);
        }
        let half = 1_u64 << (shift - 1);
        Self(((exact + half) >> shift) << shift)
    }
}

fn hex(digits: &str) -> Option<u64> {
    let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if !digits.bytes().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_have_the_thresholds_of_the_specification() {
        let cases = [
            (1.0, 4, "0"),
            (0.5, 4, "8"),
            (0.25, 4, "c"),
            (0.1, 4, "e666"),
            (0.1, 3, "e66"),
            (0.01, 4, "fd71"),
            (1.0 / 3.0, 4, "aaab"),
            (0.75, 4, "4"),
            (0.99, 4, "028f6"),
            (0.5, 14, "8"),
            (0.1, 14, "e6666666666666"),
        ];
        for (probability, precision, text) in cases {
            let threshold = Threshold::of_probability(probability, precision);
            assert_eq!(threshold.text(), text, "{probability}");
            assert_eq!(Threshold::parse(text), Some(threshold), "{text}");
            assert!((threshold.probability() - probability).abs() < 1e-3);
        }
        assert_eq!(Threshold::of_probability(0.0, 4), Threshold::NEVER);
    }

    #[test]
    fn values_that_are_none_are_refused() {
        for text in ["", "g", "A", "123456789abcdef", "+1", " 1"] {
            assert_eq!(Threshold::parse(text), None, "{text}");
            assert_eq!(Randomness::parse(text), None, "{text}");
        }
        assert!(Randomness::parse("123456789abcde").is_some());
        assert_eq!(Randomness::of_trace_id(&[0; 16]), None);
        assert_eq!(Randomness::of_trace_id(&[1; 8]), None);
    }

    #[test]
    fn a_trace_is_kept_by_its_low_56_bits() {
        let mut id = [0xff; 16];
        id[9..].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0]);
        let randomness = Randomness::of_trace_id(&id).unwrap();
        assert_eq!(randomness.text(), "80000000000000");
        assert!(Threshold::parse("8").unwrap().keeps(randomness));
        assert!(
            !Threshold::parse("80000000000001")
                .unwrap()
                .keeps(randomness)
        );
        assert!(!Threshold::NEVER.keeps(Randomness::from_bits(u64::MAX)));
    }
}

//! A hash of a sequence, grown value by value.

/// Adds to a hash.
pub fn mix(hash: u64, value: u32) -> u64 {
    let mut mixed = hash ^ u64::from(value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 29)
}

//! Words of a request that may name what it is about: an id in a target, in a key. A process that
//! serves `GET /users/8471` asks Redis for `user:8471`.
//!
//! Only hashes leave, and only to the linker, which looks whether a word is rare: exactly one request
//! that is being served came with it.

use span_model::PAYLOAD_TOKEN;
use xxhash_rust::xxh3::xxh3_64;

/// Words of one request; those that come first.
const MAX_WORDS: usize = 4;
/// Longer text is not looked through.
const MAX_BYTES: usize = 1024;
/// Shorter ones are not rare: a page, a year's quarter.
const MIN_DIGITS: usize = 4;
const MIN_ID: usize = 8;

/// The tokens of a text.
pub fn tokens(text: &[u8]) -> impl Iterator<Item = u64> {
    let text = text.get(..MAX_BYTES).unwrap_or(text);
    let words = text.split(|byte| !byte.is_ascii_alphanumeric());
    let named = words.filter(|word| names_something(word)).take(MAX_WORDS);
    named.map(|word| xxh3_64(word) | PAYLOAD_TOKEN)
}

/// A number, or a longer word with digits in it.
fn names_something(word: &[u8]) -> bool {
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_number = digits == word.len() && digits >= MIN_DIGITS;
    is_number || (word.len() >= MIN_ID && digits >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<u64> {
        tokens(text.as_bytes()).collect()
    }

    #[test]
    fn an_id_is_the_same_in_a_target_and_in_a_key() {
        assert_eq!(of("/users/8471/cart?page=2"), of("user:8471"));
        assert_eq!(of("user:8471").len(), 1);
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(
            of(&format!("/orders/{uuid}")),
            of(&format!("order:{uuid}:items"))
        );
    }

    #[test]
    fn words_that_many_requests_have_are_left_out() {
        for common in [
            "",
            "/",
            "/api/v2024/users/me",
            "/items?page=12&sort=price",
            "GET",
        ] {
            assert!(of(common).is_empty(), "{common}");
        }
        assert_eq!(of(&"/12345".repeat(100)).len(), MAX_WORDS);
    }
}

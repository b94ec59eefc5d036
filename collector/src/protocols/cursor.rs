//! Reads fields from the front of a slice; nothing is taken past its end.

use memchr::memchr;

/// What reading something gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading<T> {
    /// It is there, whole.
    Done(T),
    /// What is there fits, and more must come.
    Partial,
    /// It cannot become what was asked for.
    Bad,
}

/// A position in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the front.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes taken so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// What has not been taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The next byte, left where it is.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Takes exactly `count` bytes, or none.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..count)?;
        self.position += count;
        Some(taken)
    }

    /// Takes a line that ends in CR LF and gives it without them. `limit` counts the
    /// line without its end; longer is bad, and so is a LF without its CR.
    pub(crate) fn crlf_line(&mut self, limit: usize) -> Reading<&'a [u8]> {
        let rest = self.rest();
        let window = rest.get(..limit.saturating_add(2)).unwrap_or(rest);
        let Some(end) = memchr(b'\n', window) else {
            let full = window.len() > limit.saturating_add(1);
            return if full { Reading::Bad } else { Reading::Partial };
        };
        let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        let Some(line) = line else {
            return Reading::Bad;
        };
        self.position += end + 1;
        Reading::Done(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_past_the_end() {
        let mut cursor = Cursor::new(b"abc");
        assert_eq!(cursor.take(4), None);
        assert_eq!(cursor.take(2), Some(&b"ab"[..]));
        assert_eq!((cursor.position(), cursor.peek()), (2, Some(b'c')));
        assert_eq!(cursor.take(1), Some(&b"c"[..]));
        assert_eq!((cursor.peek(), cursor.take(1)), (None, None));
        assert_eq!(cursor.take(0), Some(&b""[..]));
    }

    #[test]
    fn a_line_ends_in_cr_lf_within_its_limit() {
        for (bytes, expected) in [
            (&b"12\r\n"[..], Reading::Done(&b"12"[..])),
            (b"1234\r\nx", Reading::Done(b"1234")),
            (b"12\r", Reading::Partial),
            (b"", Reading::Partial),
            (b"1234\r", Reading::Partial),
            (b"12345\r", Reading::Bad),
            (b"12\n", Reading::Bad),
        ] {
            assert_eq!(Cursor::new(bytes).crlf_line(4), expected, "{bytes:?}");
        }
    }
}

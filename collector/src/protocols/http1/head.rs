//! Start lines, header lines and what they say about the body.

use crate::protocols::MAX_UNREAD;
use crate::protocols::cursor::Reading;
use memchr::{memchr, memchr_iter};
use std::borrow::Cow;

/// A head that is longer is given up.
pub(super) const MAX_HEAD: usize = MAX_UNREAD;
const MAX_METHOD: usize = 32;

/// The version in a start line; only these two are HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
}

impl Version {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a [u8],
    pub(super) version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    pub(super) version: Version,
    pub(super) status: u16,
}

/// Reads `METHOD target HTTP/1.x`, without its line end. Unless the line is
/// `whole`, more of it may follow.
pub(super) fn request_line(line: &[u8], whole: bool) -> Reading<RequestLine<'_>> {
    let partial = |fits: bool| {
        if fits && !whole {
            Reading::Partial
        } else {
            Reading::Bad
        }
    };
    let Some((method, rest)) = split_at_byte(line, b' ') else {
        return partial(line.len() <= MAX_METHOD && line.iter().all(|byte| is_token(*byte)));
    };
    let method = std::str::from_utf8(method).unwrap_or_default();
    if !(1..=MAX_METHOD).contains(&method.len()) || !method.bytes().all(is_token) {
        return Reading::Bad;
    }
    let Some((target, version)) = split_at_byte(rest, b' ') else {
        return partial(rest.iter().all(|byte| is_target(*byte)));
    };
    if target.is_empty() || !target.iter().all(|byte| is_target(*byte)) {
        return Reading::Bad;
    }
    match read_version(version) {
        Some(version) if whole => Reading::Done(RequestLine {
            method,
            target,
            version,
        }),
        _ => partial(b"HTTP/1.1\r".starts_with(version) || b"HTTP/1.0\r".starts_with(version)),
    }
}

/// Reads `HTTP/1.x NNN reason`, without its line end. The reason is anything, so
/// the line need not be whole.
pub(super) fn status_line(line: &[u8], whole: bool) -> Reading<StatusLine> {
    const SHAPE: &[u8] = b"HTTP/1.x NNN";
    let fits = SHAPE.iter().zip(line).all(|(wanted, byte)| match wanted {
        b'x' => matches!(byte, b'0' | b'1'),
        b'N' => byte.is_ascii_digit(),
        _ => wanted == byte,
    });
    let end = match line.get(SHAPE.len()) {
        Some(next) => matches!(next, b' ' | b'\r').then_some(true),
        None if whole => (line.len() == SHAPE.len()).then_some(true),
        None => Some(false),
    };
    match (
        fits,
        end,
        line.get(..8).and_then(read_version),
        line.get(9..12),
    ) {
        (true, Some(true), Some(version), Some(digits)) => {
            let status = digits.iter().fold(0, |status, digit| {
                status * 10 + u16::from(digit.saturating_sub(b'0'))
            });
            Reading::Done(StatusLine { version, status })
        }
        (true, Some(false), _, _) => Reading::Partial,
        _ => Reading::Bad,
    }
}

/// Bytes of the line ends that stand before a start line; RFC 9112, 2.2 says to
/// ignore them.
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    bytes.iter().take_while(blank).count()
}

fn read_version(text: &[u8]) -> Option<Version> {
    match text {
        b"HTTP/1.0" => Some(Version::Http10),
        b"HTTP/1.1" => Some(Version::Http11),
        _ => None,
    }
}

/// Where the empty line that ends the head ends, counted from the front.
/// `scanned` remembers how far the search came, for the next call with more bytes.
pub(super) fn end_of_head(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = *scanned;
    let window = bytes.get(from..).unwrap_or_default();
    for at in memchr_iter(b'\n', window) {
        let line_end = from + at + 1;
        match bytes.get(line_end..).unwrap_or_default() {
            [b'\n', ..] => return Some(line_end + 1),
            [b'\r', b'\n', ..] => return Some(line_end + 2),
            [] | [b'\r'] => {
                *scanned = line_end - 1;
                return None;
            }
            _ => {}
        }
    }
    *scanned = bytes.len();
    None
}

/// A line without the CR that may stand before its LF.
pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// One header line, or a line that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderLine<'a> {
    Header { name: &'a str, value: Cow<'a, str> },
    Broken,
}

/// Walks the lines between the start line and the empty line. A line that begins
/// with a blank continues the one before (obs-fold).
pub(super) struct HeaderLines<'a> {
    rest: &'a [u8],
}

impl<'a> HeaderLines<'a> {
    /// `head` is all of it, from the start line on.
    pub(super) fn of_head(head: &'a [u8]) -> Self {
        let rest = split_at_byte(head, b'\n').map_or(&[][..], |(_, rest)| rest);
        Self { rest }
    }
}

impl<'a> Iterator for HeaderLines<'a> {
    type Item = HeaderLine<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest;
        let folded = |end: &usize| matches!(rest.get(end + 1), Some(b' ' | b'\t'));
        let end = memchr_iter(b'\n', rest).find(|end| !folded(end))?;
        let (line, after) = rest.split_at_checked(end)?;
        self.rest = after.get(1..).unwrap_or_default();
        let line = without_line_end(line);
        if line.is_empty() {
            return None;
        }
        Some(header_line(line).unwrap_or(HeaderLine::Broken))
    }
}

fn header_line(line: &[u8]) -> Option<HeaderLine<'_>> {
    let (name, value) = split_at_byte(line, b':')?;
    // Blanks before the colon are forbidden, but some servers send them.
    let name = std::str::from_utf8(name.trim_ascii_end()).ok()?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let value = match String::from_utf8_lossy(value.trim_ascii()) {
        value if value.contains('\n') => {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            words.join(" ").into()
        }
        value => value,
    };
    Some(HeaderLine::Header { name, value })
}

/// How the bytes after the head are cut, as far as the headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// The length, where every `Content-Length` says the same.
    length: Option<u64>,
    /// They disagree, or one is no number.
    broken_length: bool,
    /// Some `Transfer-Encoding` is there; the last one decides.
    encoding: Option<Encoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Chunked,
    Other,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
    /// The headers contradict each other: where the message ends is anyone's guess.
    Unknown,
}

impl Framing {
    /// Takes one header in.
    pub(super) fn offer(&mut self, name: &str, value: &str) {
        if name.eq_ignore_ascii_case("content-length") {
            for length in value.split(',') {
                self.offer_length(length.trim());
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let last = value.rsplit(',').next().unwrap_or_default().trim();
            let chunked = last.eq_ignore_ascii_case("chunked");
            self.encoding = Some(if chunked {
                Encoding::Chunked
            } else {
                Encoding::Other
            });
        }
    }

    fn offer_length(&mut self, digits: &str) {
        let number = digits.bytes().all(|digit| digit.is_ascii_digit());
        match digits.parse::<u64>().ok().filter(|_| number) {
            Some(length) if self.length.is_none_or(|seen| seen == length) => {
                self.length = Some(length);
            }
            _ => self.broken_length = true,
        }
    }

    /// RFC 9112, 6.3, for a request.
    pub(super) fn request_body(self) -> Body {
        match (self.encoding, self.length) {
            (Some(Encoding::Chunked), _) => Body::Chunked,
            (Some(Encoding::Other), _) => Body::Unknown,
            _ if self.broken_length => Body::Unknown,
            (None, Some(length)) if length > 0 => Body::Length(length),
            _ => Body::None,
        }
    }

    /// RFC 9112, 6.3, for a response that is neither to HEAD nor a tunnel.
    pub(super) fn response_body(self, status: u16) -> Body {
        match (self.encoding, self.length) {
            _ if matches!(status, 100..=199 | 204 | 304) => Body::None,
            (Some(Encoding::Chunked), _) => Body::Chunked,
            (Some(Encoding::Other), _) => Body::UntilClose,
            _ if self.broken_length => Body::Unknown,
            (None, Some(0)) => Body::None,
            (None, Some(length)) => Body::Length(length),
            (None, None) => Body::UntilClose,
        }
    }
}

/// Size of a chunk from its line, extensions left out.
pub(super) fn chunk_size(line: &[u8]) -> Option<u64> {
    let (digits, _) = split_at_byte(line, b';').unwrap_or((line, &[]));
    let digits = std::str::from_utf8(digits.trim_ascii()).ok()?;
    let hex =
        (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// What stands before and after the first such byte.
fn split_at_byte(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = bytes.split_at_checked(memchr(wanted, bytes)?)?;
    Some((before, after.get(1..)?))
}

/// RFC 9110, 5.6.2: what methods and header names are made of.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Wider than the RFC, as servers are: no blank, no control character.
pub(super) fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

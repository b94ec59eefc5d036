//! Reads a command's name, and of its arguments the few that steer the connection.

use super::MAX_NAME;
use super::commands;
use super::resp::number;
use crate::protocols::cursor::{Cursor, Reading};
use memchr::memchr;

/// A type byte and a number.
const MAX_HEADER: usize = 32;

/// What a command's first words say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command<'a> {
    /// The first word, where it may be shown.
    pub(super) name: Option<&'a str>,
    /// The second, where it belongs to the name.
    pub(super) subcommand: Option<&'a str>,
    /// An argument that changes what later bytes mean; it never leaves the parser.
    pub(super) argument: Option<&'a str>,
    /// The first argument, which is the key of most commands, if it is here whole; only hashes of it leave
    /// the parser.
    pub(super) key: Option<&'a [u8]>,
    /// Words after the name and the subcommand.
    pub(super) arguments: u64,
}

impl Command<'_> {
    /// True if the name is this one, in any case.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.is_some_and(|own| own.eq_ignore_ascii_case(name))
    }

    /// True if name and subcommand are these, in any case.
    pub(super) fn is_both(&self, name: &str, subcommand: &str) -> bool {
        self.is(name)
            && self
                .subcommand
                .is_some_and(|own| own.eq_ignore_ascii_case(subcommand))
    }

    /// The argument as a number.
    pub(super) fn argument_number(&self) -> Option<u64> {
        self.argument.and_then(|digits| number(digits.as_bytes()))
    }
}

/// Bytes that Redis passes over between commands: empty lines and empty arrays.
pub(super) fn blank_commands(bytes: &[u8]) -> usize {
    const BLANK: [&[u8]; 4] = [b"\r\n", b"\n", b"*0\r\n", b"*-1\r\n"];
    let mut rest = bytes;
    while let Some(after) = BLANK.iter().find_map(|blank| rest.strip_prefix(*blank)) {
        rest = after;
    }
    bytes.len() - rest.len()
}

/// Reads the words that matter of `*N\r\n$L\r\nNAME\r\n…`.
pub(super) fn read_array(bytes: &[u8]) -> Reading<Command<'_>> {
    let mut cursor = Cursor::new(bytes);
    let words = match header(&mut cursor, b'*') {
        Reading::Done(words) if words > 0 => words,
        Reading::Partial => return Reading::Partial,
        _ => return Reading::Bad,
    };
    let name = match word(&mut cursor) {
        Reading::Done(name) => name.and_then(commands::sane),
        Reading::Partial => return Reading::Partial,
        Reading::Bad => return Reading::Bad,
    };
    let mut command = Command {
        name,
        arguments: words - 1,
        ..Command::default()
    };
    let wants_subcommand = name.is_some_and(commands::has_subcommands);
    if words > 1 && (wants_subcommand || command.is("SELECT")) {
        let second = match word(&mut cursor) {
            Reading::Done(second) => second.and_then(|second| std::str::from_utf8(second).ok()),
            Reading::Partial => return Reading::Partial,
            Reading::Bad => return Reading::Bad,
        };
        take_second(&mut command, second);
    } else if words > 1 && !command.is("AUTH") {
        command.key = match word(&mut cursor.clone()) {
            Reading::Done(key) => key,
            Reading::Partial | Reading::Bad => None,
        };
    }
    if words > 2 && command.is_both("CLIENT", "REPLY") {
        match word(&mut cursor) {
            Reading::Done(third) => {
                command.argument = third.and_then(|third| std::str::from_utf8(third).ok());
            }
            Reading::Partial => return Reading::Partial,
            Reading::Bad => return Reading::Bad,
        }
    }
    Reading::Done(command)
}

/// Reads an inline command: words on a line. Gives the line's length, too.
pub(super) fn read_inline(bytes: &[u8]) -> Reading<(Command<'_>, usize)> {
    let end = memchr(b'\n', bytes);
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    let named = line.trim_ascii_start().len() > name.len();
    let fits = if named || end.is_some() {
        commands::is_known(name)
    } else {
        name.len() <= MAX_NAME && name.iter().all(u8::is_ascii_graphic)
    };
    match end {
        _ if !fits => Reading::Bad,
        None => Reading::Partial,
        Some(end) => {
            let mut command = Command {
                name: commands::sane(name),
                arguments: u64::try_from(words.clone().count()).unwrap_or(0),
                ..Command::default()
            };
            let mut words = words.map(|word| std::str::from_utf8(word).ok());
            take_second(&mut command, words.next().flatten());
            if command.is_both("CLIENT", "REPLY") {
                command.argument = words.next().flatten();
            }
            Reading::Done((command, end + 1))
        }
    }
}

/// The second word belongs to the name, or steers the connection, or is nobody's business.
fn take_second<'a>(command: &mut Command<'a>, second: Option<&'a str>) {
    let (Some(name), Some(second)) = (command.name, second) else {
        return;
    };
    if commands::is_subcommand(name, second) {
        command.subcommand = Some(second);
        command.arguments = command.arguments.saturating_sub(1);
    } else if command.is("SELECT") {
        command.argument = Some(second);
    }
}

/// True, or perhaps true, or false: a command with a known name starts here.
pub(super) fn known_command(bytes: &[u8]) -> Reading<()> {
    match read_array(bytes) {
        Reading::Done(command) => {
            let known = command
                .name
                .is_some_and(|name| commands::is_known(name.as_bytes()));
            if known {
                Reading::Done(())
            } else {
                Reading::Bad
            }
        }
        Reading::Partial => Reading::Partial,
        Reading::Bad => Reading::Bad,
    }
}

/// The same for a line of words.
pub(super) fn known_line(bytes: &[u8]) -> Reading<()> {
    match read_inline(bytes) {
        Reading::Done(_) => Reading::Done(()),
        Reading::Partial => Reading::Partial,
        Reading::Bad => known_command(bytes),
    }
}

/// Reads a type byte and a number.
pub(super) fn header(cursor: &mut Cursor<'_>, kind: u8) -> Reading<u64> {
    if cursor.peek().is_some_and(|byte| byte != kind) {
        return Reading::Bad;
    }
    match cursor.crlf_line(MAX_HEADER) {
        Reading::Done(line) => match line.get(1..).and_then(number) {
            Some(number) => Reading::Done(number),
            None => Reading::Bad,
        },
        Reading::Partial => Reading::Partial,
        Reading::Bad => Reading::Bad,
    }
}

/// Reads a bulk string that is short enough to be a name; a longer one is left.
pub(super) fn word<'a>(cursor: &mut Cursor<'a>) -> Reading<Option<&'a [u8]>> {
    let length = match header(cursor, b'$') {
        Reading::Done(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Reading::Partial => return Reading::Partial,
        Reading::Bad => return Reading::Bad,
    };
    if length > MAX_NAME {
        return Reading::Done(None);
    }
    match cursor.take(length + 2) {
        Some(text) => match text.strip_suffix(b"\r\n") {
            Some(text) => Reading::Done(Some(text)),
            None => Reading::Bad,
        },
        None => Reading::Partial,
    }
}

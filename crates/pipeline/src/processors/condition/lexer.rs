//! Text into words, each with its column.

use super::Unreadable;

/// One word of a condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name: of a path, a function, an enum, or `and`, `or`, `not`, `true`, `false`, `nil`.
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    /// `==`, `(` and so on.
    Sign(&'static str),
    End,
}

impl Token {
    /// For messages.
    pub fn shown(&self) -> String {
        match self {
            Self::Name(name) => format!("\"{name}\""),
            Self::Str(text) => format!("the text \"{text}\""),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Sign(sign) => format!("\"{sign}\""),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Longer ones first, so that `<=` is not `<` and `=`.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/",
];

/// The words, each with its column; the last is `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Unreadable> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_while(char::is_whitespace);
        let column = lexer.column();
        let token = lexer.token(column)?;
        let ended = token == Token::End;
        tokens.push((column, token));
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn column(&self) -> usize {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.chars().count() + 1
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn token(&mut self, column: usize) -> Result<Token, Unreadable> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '"' {
            return self.text(column);
        }
        if first.is_ascii_digit() || starts_with_fraction(rest) {
            return self.number(column);
        }
        if first.is_ascii_alphabetic() {
            let name = self.skip_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(Token::Name(name.to_owned()));
        }
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
        let Some(sign) = sign else {
            let hint = match first {
                '=' => ": to compare, write ==",
                '\'' => ": text stands in double quotes",
                '&' => ": write and",
                '|' => ": write or",
                '!' => ": write not",
                _ => "",
            };
            return Err(Unreadable {
                column,
                message: format!("unexpected '{first}'{hint}"),
            });
        };
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    /// A text in double quotes, with the escapes of Go.
    fn text(&mut self, column: usize) -> Result<Token, Unreadable> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(Token::Str(text));
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\' | '/'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => {
                        let before = self.rest().get(..offset).unwrap_or_default();
                        return Err(Unreadable {
                            column: column + before.chars().count(),
                            message: format!(
                                "unknown escape \\{other}: for a backslash write \\\\"
                            ),
                        });
                    }
                    None => break,
                },
                _ => text.push(c),
            }
        }
        Err(Unreadable {
            column,
            message: "this text has no closing \"".to_owned(),
        })
    }

    fn number(&mut self, column: usize) -> Result<Token, Unreadable> {
        let word = self.skip_while(|c| c.is_ascii_alphanumeric() || c == '.');
        let token = if let Some(digits) = word.strip_prefix("0x") {
            hex(digits).map(Token::Bytes)
        } else if word.contains('.') {
            word.parse().ok().map(Token::Float)
        } else {
            word.parse().ok().map(Token::Int)
        };
        token.ok_or_else(|| Unreadable {
            column,
            message: format!("\"{word}\" is no number"),
        })
    }
}

fn starts_with_fraction(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit())
}

/// Bytes of hexadecimal digits, two each.
fn hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

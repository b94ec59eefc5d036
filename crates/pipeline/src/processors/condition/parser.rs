//! Words into a tree.
//!
//! ```text
//! or      = and { "or" and }
//! and     = not { "and" not }
//! not     = [ "not" ] ( "true" | "false" | comparison | function | "(" or ")" )
//! compare = sum ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) sum
//! sum     = product { ("+" | "-") product }
//! product = term { ("*" | "/") term }
//! term    = literal | enum | path | function "(" { sum } ")" | "(" sum ")"
//! ```

use super::eval::{Term, Test};
use super::function::{self, Function};
use super::lexer::{Token, tokens};
use super::path::{Key, Path};
use super::value::{Comparison, Operator};
use super::{Context, Unreadable};
use crate::config::report::did_you_mean;
use crate::processors::pattern::Pattern;

/// Characters that a condition may have.
const MAX_LENGTH: usize = 16_384;
/// Brackets, functions and `not`s that may stand in each other.
const MAX_DEPTH: usize = 64;

const COMPARISONS: &[(&str, Comparison)] = &[
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    ("<=", Comparison::LessOrEqual),
    (">", Comparison::Greater),
    (">=", Comparison::GreaterOrEqual),
];

const ENUMS: &[(&str, i64)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

/// The tree, and whether it mentions an event.
pub(super) fn parse(text: &str, context: Context) -> Result<(Test, bool), Unreadable> {
    if text.len() > MAX_LENGTH {
        return Err(Unreadable {
            column: MAX_LENGTH,
            message: format!("a condition may have {MAX_LENGTH} characters"),
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        context,
        mentions_event: false,
    };
    let test = parser.or()?;
    match parser.token() {
        Token::End => Ok((test, parser.mentions_event)),
        other => Err(parser.error(format!(
            "expected and, or, or the end, got {}",
            other.shown()
        ))),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    context: Context,
    mentions_event: bool,
}

type Parsed<T> = Result<T, Unreadable>;

impl Parser {
    fn token(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn column(&self) -> usize {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(1, |(column, _)| *column)
    }

    fn error(&self, message: impl Into<String>) -> Unreadable {
        Unreadable {
            column: self.column(),
            message: message.into(),
        }
    }

    fn take_sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.token(), Token::Sign(sign) if *sign == wanted);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.token(), Token::Name(name) if name == wanted);
        self.at += usize::from(found);
        found
    }

    fn want_sign(&mut self, wanted: &str) -> Parsed<()> {
        if self.take_sign(wanted) {
            return Ok(());
        }
        Err(self.error(format!(
            "expected \"{wanted}\", got {}",
            self.token().shown()
        )))
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Parsed<Test> {
        let first = self.and()?;
        let mut tests = vec![first];
        while self.take_word("or") {
            tests.push(self.and()?);
        }
        Ok(single(tests, Test::Or))
    }

    fn and(&mut self) -> Parsed<Test> {
        let first = self.not()?;
        let mut tests = vec![first];
        while self.take_word("and") {
            tests.push(self.not()?);
        }
        Ok(single(tests, Test::And))
    }

    fn not(&mut self) -> Parsed<Test> {
        if self.take_word("not") {
            let inner = self.deeper(Self::not)?;
            return Ok(Test::Not(Box::new(inner)));
        }
        if !matches!(self.token(), Token::Sign("(")) {
            return self.comparison();
        }
        // `(a + b) > c` or `(a > b and c)`: only what follows tells.
        let (start, mentioned) = (self.at, self.mentions_event);
        let as_value = match self.comparison() {
            Ok(test) => return Ok(test),
            Err(error) => error,
        };
        (self.at, self.mentions_event) = (start, mentioned);
        self.deeper(Self::group).map_err(|error| {
            if error.column >= as_value.column {
                error
            } else {
                as_value
            }
        })
    }

    fn group(&mut self) -> Parsed<Test> {
        self.want_sign("(")?;
        let test = self.or()?;
        self.want_sign(")")?;
        Ok(test)
    }

    fn comparison(&mut self) -> Parsed<Test> {
        let start = self.column();
        let left = self.sum()?;
        let sign = match self.token() {
            Token::Sign(sign) => COMPARISONS.iter().find(|(known, _)| known == sign),
            _ => None,
        };
        if let Some((_, comparison)) = sign {
            self.at += 1;
            let right = self.sum()?;
            return Ok(Test::Compare(left, *comparison, right));
        }
        match left {
            Term::Bool(truth) => Ok(Test::Literal(truth)),
            Term::Matches(term, pattern) => Ok(Test::Matches(*term, pattern)),
            Term::Call(function, terms) if function.asks() => Ok(Test::Ask(function, terms)),
            Term::Path(_) | Term::Call(..) => {
                let got = self.token().shown();
                Err(self.error(format!("expected a comparison such as ==, got {got}")))
            }
            _ => Err(Unreadable {
                column: start,
                message: "this is a value and no condition".to_owned(),
            }),
        }
    }

    fn sum(&mut self) -> Parsed<Term> {
        let mut left = self.product()?;
        loop {
            let operator = if self.take_sign("+") {
                Operator::Add
            } else if self.take_sign("-") {
                Operator::Subtract
            } else {
                return Ok(left);
            };
            let right = self.product()?;
            left = Term::Compute(Box::new(left), operator, Box::new(right));
        }
    }

    fn product(&mut self) -> Parsed<Term> {
        let mut left = self.term()?;
        loop {
            let operator = if self.take_sign("*") {
                Operator::Multiply
            } else if self.take_sign("/") {
                Operator::Divide
            } else {
                return Ok(left);
            };
            let right = self.term()?;
            left = Term::Compute(Box::new(left), operator, Box::new(right));
        }
    }

    fn term(&mut self) -> Parsed<Term> {
        let token = self.token().clone();
        let literal = match token {
            Token::Name(name) => return self.named(&name),
            Token::Sign("(") => {
                return self.deeper(|parser| {
                    parser.at += 1;
                    let term = parser.sum()?;
                    parser.want_sign(")")?;
                    Ok(term)
                });
            }
            Token::Sign(sign @ ("-" | "+")) => return self.signed(sign == "-"),
            Token::Str(text) => Term::Str(text),
            Token::Int(number) => Term::Int(number),
            Token::Float(number) => Term::Float(number),
            Token::Bytes(bytes) => Term::Bytes(bytes),
            other => {
                return Err(self.error(format!("expected a value, got {}", other.shown())));
            }
        };
        self.at += 1;
        Ok(literal)
    }

    fn signed(&mut self, negative: bool) -> Parsed<Term> {
        self.at += 1;
        let term = match (self.token(), negative) {
            (Token::Int(number), true) => Term::Int(-number),
            (Token::Int(number), false) => Term::Int(*number),
            (Token::Float(number), true) => Term::Float(-number),
            (Token::Float(number), false) => Term::Float(*number),
            (other, _) => {
                return Err(self.error(format!("expected a number, got {}", other.shown())));
            }
        };
        self.at += 1;
        Ok(term)
    }

    fn named(&mut self, name: &str) -> Parsed<Term> {
        let literal = match name {
            "true" => Some(Term::Bool(true)),
            "false" => Some(Term::Bool(false)),
            "nil" => Some(Term::Nil),
            _ => None,
        };
        if let Some(literal) = literal {
            self.at += 1;
            return Ok(literal);
        }
        if matches!(name, "and" | "or" | "not") {
            return Err(self.error(format!("expected a value, got \"{name}\"")));
        }
        if let Some((_, number)) = ENUMS.iter().find(|(known, _)| *known == name) {
            self.at += 1;
            return Ok(Term::Int(*number));
        }
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            return self.call(name);
        }
        self.path()
    }

    fn path(&mut self) -> Parsed<Term> {
        let start = self.column();
        let mut names = Vec::new();
        loop {
            let Token::Name(name) = self.token() else {
                let got = self.token().shown();
                return Err(self.error(format!("expected a name, got {got}")));
            };
            names.push(name.clone());
            self.at += 1;
            if !self.take_sign(".") {
                break;
            }
        }
        let mut keys = Vec::new();
        while self.take_sign("[") {
            let key = match self.token() {
                Token::Str(key) => Key::Name(key.clone()),
                Token::Int(index) if *index >= 0 => {
                    Key::Index(usize::try_from(*index).unwrap_or(usize::MAX))
                }
                other => {
                    let got = other.shown();
                    return Err(self.error(format!("expected a key in quotes, got {got}")));
                }
            };
            keys.push(key);
            self.at += 1;
            self.want_sign("]")?;
        }
        let path = Path::new(&names.join("."), keys, self.context);
        let path = path.map_err(|message| Unreadable {
            column: start,
            message,
        })?;
        self.mentions_event |= path.is_about_event();
        Ok(Term::Path(path))
    }

    fn call(&mut self, name: &str) -> Parsed<Term> {
        let function = Function::named(name);
        if function.is_none() && name != "IsMatch" {
            let enums = ENUMS.iter().map(|(known, _)| *known);
            let hint = did_you_mean(name, function::names().chain(enums));
            return Err(self.error(format!("unknown function or constant \"{name}\"{hint}")));
        }
        let start = self.column();
        self.at += 1;
        let mut arguments = self.deeper(Self::arguments)?;
        let wanted = function.map_or(2, Function::argument_count);
        if arguments.len() != wanted {
            let got = arguments.len();
            return Err(Unreadable {
                column: start,
                message: format!("{name} takes {wanted} arguments, got {got}"),
            });
        }
        if let Some(function) = function {
            let terms = arguments.into_iter().map(|(_, term)| term).collect();
            return Ok(Term::Call(function, terms));
        }
        let (Some((column, pattern)), Some((_, target))) = (arguments.pop(), arguments.pop())
        else {
            return Err(self.error("IsMatch takes 2 arguments"));
        };
        let pattern = match &pattern {
            Term::Str(text) => Pattern::new(text),
            _ => Err("the pattern must stand here as text in quotes".to_owned()),
        };
        let pattern = pattern.map_err(|message| Unreadable { column, message })?;
        Ok(Term::Matches(Box::new(target), pattern))
    }

    /// Each with its column.
    fn arguments(&mut self) -> Parsed<Vec<(usize, Term)>> {
        self.want_sign("(")?;
        let mut arguments = Vec::new();
        if self.take_sign(")") {
            return Ok(arguments);
        }
        loop {
            let column = self.column();
            arguments.push((column, self.sum()?));
            if !self.take_sign(",") {
                break;
            }
        }
        self.want_sign(")")?;
        Ok(arguments)
    }
}

fn single(mut tests: Vec<Test>, several: fn(Vec<Test>) -> Test) -> Test {
    match (tests.len(), tests.pop()) {
        (1, Some(test)) => test,
        (_, last) => {
            tests.extend(last);
            several(tests)
        }
    }
}

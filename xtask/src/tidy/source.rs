//! One source file: its tokens, its functions, which of its lines are tests, and the rules that a
//! file can keep or break alone.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::{Complaint, FUNCTION_LINES};

/// Where `unsafe` may stand.
const UNSAFE_ROOMS: [&str; 3] = ["ebpf/", "crates/ebpf-common/", "collector/src/capture"];
/// Who may read clocks, besides files called `clock.rs` and tests.
const CLOCK_READERS: [&str; 4] = ["xtask/", "integration-tests/", "ebpf/", "fuzz/"];

/// A parsed file.
pub struct Source {
    /// Relative to the repository's root.
    pub file: PathBuf,
    lines: Vec<String>,
    /// All tokens, those of macro calls and attributes too.
    pub tokens: TokenStream,
    functions: Vec<(String, usize, usize)>,
    tests: Vec<RangeInclusive<usize>>,
}

impl Source {
    pub fn parse(file: &Path, text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse().map_err(syn::Error::from)?;
        let mut items = Items::default();
        items.visit_file(&syn::parse2(tokens.clone())?);
        let lines = text.lines().map(str::to_owned).collect();
        let Items { functions, tests } = items;
        Ok(Self {
            file: file.to_owned(),
            lines,
            tokens,
            functions,
            tests,
        })
    }

    /// Whether a line belongs to a test, or to a program that is only shown.
    pub fn is_test(&self, line: usize) -> bool {
        let dirs = ["tests", "benches", "examples", "fuzz"];
        self.file
            .iter()
            .any(|part| dirs.iter().any(|dir| part == *dir))
            || self.file.file_name().is_some_and(|name| name == "tests.rs")
            || self.tests.iter().any(|range| range.contains(&line))
    }

    /// Checks the rules.
    pub fn check(&self, complaints: &mut Vec<Complaint>) {
        for (name, first, last) in &self.functions {
            let lines = last - first + 1;
            if lines > FUNCTION_LINES {
                let text =
                    format!("function {name} of {lines} lines; {FUNCTION_LINES} are the limit");
                complaints.push(Complaint::new(&self.file, *first, text));
            }
        }
        self.check_tokens(self.tokens.clone(), complaints);
    }

    fn check_tokens(&self, tokens: TokenStream, complaints: &mut Vec<Complaint>) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let line = token.span().start().line;
            let rest = &tokens[at..];
            let text = match token {
                TokenTree::Group(group) => {
                    self.check_tokens(group.stream(), complaints);
                    None
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => attribute(rest),
                TokenTree::Punct(punct) if punct.as_char() == '.' => self.panics(line, rest),
                TokenTree::Ident(ident) if ident == "unsafe" => self.unsafety(line, rest),
                TokenTree::Ident(_) => self.clock(line, rest),
                _ => None,
            };
            complaints.extend(text.map(|text| Complaint::new(&self.file, line, text)));
        }
    }

    fn panics(&self, line: usize, rest: &[TokenTree]) -> Option<String> {
        let [_, TokenTree::Ident(name), TokenTree::Group(group), ..] = rest else {
            return None;
        };
        let panics =
            (name == "unwrap" || name == "expect") && group.delimiter() == Delimiter::Parenthesis;
        (panics && !self.is_test(line)).then(|| format!("`.{name}()` outside tests"))
    }

    fn clock(&self, line: usize, rest: &[TokenTree]) -> Option<String> {
        let allowed = starts_with(&self.file, &CLOCK_READERS)
            || self.file.file_name().is_some_and(|name| name == "clock.rs")
            || self.is_test(line);
        let reads = match rest {
            [
                TokenTree::Ident(clock),
                TokenTree::Punct(_),
                TokenTree::Punct(_),
                TokenTree::Ident(now),
                ..,
            ] => (clock == "Instant" || clock == "SystemTime") && now == "now",
            _ => false,
        } || matches!(rest, [TokenTree::Ident(name), TokenTree::Group(_), ..] if name == "clock_gettime");
        (reads && !allowed).then(|| "clock read outside clock.rs".to_owned())
    }

    fn unsafety(&self, line: usize, rest: &[TokenTree]) -> Option<String> {
        let opens = match rest.get(1)? {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Ident(word) => word == "impl",
            _ => false,
        };
        // `#[unsafe(no_mangle)]` and types of function pointers are not blocks.
        let block =
            opens || matches!(&rest[1], TokenTree::Ident(word) if word == "fn" && is_item(rest));
        if block && !starts_with(&self.file, &UNSAFE_ROOMS) {
            return Some(format!("`unsafe` outside {}", UNSAFE_ROOMS.join(", ")));
        }
        (opens && !self.says_why(line))
            .then(|| "`unsafe` without a `// SAFETY:` sentence".to_owned())
    }

    /// Looks for the sentence above the statement that the line belongs to, or on the line itself.
    fn says_why(&self, line: usize) -> bool {
        let line_at = |line: usize| {
            self.lines
                .get(line.wrapping_sub(1))
                .map_or("", |text| text.trim())
        };
        let mut above = line;
        if line_at(line).contains("// SAFETY:") {
            return true;
        }
        loop {
            above -= 1;
            let text = line_at(above);
            if text.contains("// SAFETY:") {
                return true;
            }
            let comment = text.starts_with("//") || text.starts_with("#[");
            let ends_statement = text.is_empty() || text.ends_with([';', '{', '}', ',']);
            if above == 0 || (!comment && ends_statement) {
                return false;
            }
        }
    }
}

/// `unsafe fn name`, not `unsafe fn(…)`.
fn is_item(rest: &[TokenTree]) -> bool {
    matches!(rest.get(2), Some(TokenTree::Ident(_)))
}

fn attribute(rest: &[TokenTree]) -> Option<String> {
    let inner =
        usize::from(matches!(rest.get(1), Some(TokenTree::Punct(mark)) if mark.as_char() == '!'));
    let Some(TokenTree::Group(group)) = rest.get(1 + inner) else {
        return None;
    };
    if group.delimiter() != Delimiter::Bracket {
        return None;
    }
    let text = group.stream().to_string().replace(char::is_whitespace, "");
    if text.starts_with("allow(") || (text.starts_with("cfg_attr(") && text.contains(",allow(")) {
        return Some("`allow` silences a lint; `expect` with a reason does it honestly".to_owned());
    }
    let unreasoned = text.starts_with("expect(") && !text.contains("reason=");
    unreasoned.then(|| "`expect` without a reason".to_owned())
}

fn starts_with(file: &Path, places: &[&str]) -> bool {
    let file = file.to_string_lossy();
    places.iter().any(|place| file.starts_with(place))
}

#[derive(Default)]
struct Items {
    functions: Vec<(String, usize, usize)>,
    tests: Vec<RangeInclusive<usize>>,
}

impl Items {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        self.functions
            .push((signature.ident.to_string(), first, body.span().end().line));
    }
}

impl<'ast> Visit<'ast> for Items {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            self.tests
                .push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if is_for_tests(&item.attrs) {
            self.tests
                .push(item.span().start().line..=item.span().end().line);
        }
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last();
        let test = last.is_some_and(|segment| segment.ident == "test");
        let cfg = last.is_some_and(|segment| segment.ident == "cfg");
        test || (cfg
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test")))
    })
}

//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that neither rustfmt nor clippy check.

mod imports;
mod manifests;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::run::root;
use imports::Table;
use source::Source;

const FILE_REFUSED_LINES: usize = 800;
const FILE_QUESTIONED_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Something that is not as the rules want it.
struct Complaint {
    file: PathBuf,
    line: usize,
    text: String,
}

impl Complaint {
    fn new(file: &Path, line: usize, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// Checks every source and every manifest.
pub fn run() -> Result<()> {
    let mut complaints = check(root())?;
    complaints.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    for complaint in &complaints {
        println!("{complaint}");
    }
    ensure!(
        complaints.is_empty(),
        "tidy has {} complaints",
        complaints.len()
    );
    Ok(())
}

fn check(root: &Path) -> Result<Vec<Complaint>> {
    let mut files = Vec::new();
    walk(root, Path::new(""), &mut files)?;
    let architecture = Path::new("ARCHITECTURE.md");
    let (table, mut complaints) = Table::read(architecture, &read(root, architecture)?);
    for file in files {
        let text = read(root, &file)?;
        if file.file_name().is_some_and(|name| name == "Cargo.toml") {
            manifests::check(&file, &text, &table, &mut complaints);
        } else if !text
            .lines()
            .next()
            .is_some_and(|line| line.contains("@generated"))
        {
            lengths(&file, &text, &mut complaints);
            match Source::parse(&file, &text) {
                Ok(source) => {
                    source.check(&mut complaints);
                    table.check(root, &source, &mut complaints);
                }
                Err(error) => complaints.push(Complaint::new(&file, 1, format!("{error}"))),
            }
        }
    }
    Ok(complaints)
}

fn read(root: &Path, file: &Path) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("reading {}", file.display()))
}

/// Collects sources and manifests, relative to the root; leaves build directories and hidden ones.
fn walk(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let here = root.join(dir);
    for entry in fs::read_dir(&here).with_context(|| format!("reading {}", here.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = dir.join(&name);
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                walk(root, &path, files)?;
            }
        } else if Path::new(&name).extension().is_some_and(|end| end == "rs")
            || name == "Cargo.toml"
        {
            files.push(path);
        }
    }
    Ok(())
}

fn lengths(file: &Path, text: &str, complaints: &mut Vec<Complaint>) {
    let lines = text.lines().count();
    if lines > FILE_REFUSED_LINES {
        let text = format!("file of {lines} lines; {FILE_REFUSED_LINES} are the limit");
        complaints.push(Complaint::new(file, FILE_REFUSED_LINES, text));
    } else if lines > FILE_QUESTIONED_LINES {
        println!(
            "{}:1: question: {lines} lines: is this one thing?",
            file.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks one file that is not on disk.
    fn check(file: &str, text: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        lengths(Path::new(file), text, &mut complaints);
        Source::parse(Path::new(file), text)
            .unwrap()
            .check(&mut complaints);
        complaints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_rule_finds_its_offence() {
        let cases = [
            ("fn f(x: Option<u8>) -> u8 { x.unwrap() }", "unwrap"),
            (
                "fn f(x: Option<u8>) -> u8 { dbg!(x.expect(\"it\")) }",
                "expect",
            ),
            ("#[allow(dead_code)] fn f() {}", "allow"),
            ("#![cfg_attr(test, allow(dead_code))]", "allow"),
            ("#[expect(dead_code)] fn f() {}", "reason"),
            ("fn f() { let _ = std::time::Instant::now(); }", "clock"),
            ("fn f() { let _ = SystemTime::now(); }", "clock"),
            ("fn f() { let _ = x.map(Instant::now); }", "clock"),
            ("fn f() { unsafe { g() } }", "unsafe"),
        ];
        for (text, word) in cases {
            let complaints = check("collector/src/app.rs", text);
            assert!(
                complaints.len() == 1 && complaints[0].contains(word),
                "{text}: {complaints:?}"
            );
        }
    }

    #[test]
    fn tests_and_the_right_places_are_free() {
        let in_tests =
            "#[cfg(test)] mod tests { #[test] fn f() { g().unwrap(); Instant::now(); } }";
        assert_eq!(check("collector/src/app.rs", in_tests), [""; 0]);
        assert_eq!(
            check("collector/tests/it.rs", "fn f() { g().unwrap(); }"),
            [""; 0]
        );
        assert_eq!(
            check("crates/pipeline/src/clock.rs", "fn f() { Instant::now(); }"),
            [""; 0]
        );
        let reason = "#[expect(dead_code, reason = \"later\")] fn f() {}";
        assert_eq!(check("collector/src/app.rs", reason), [""; 0]);
    }

    #[test]
    fn unsafe_says_why_it_is_safe() {
        let said = "fn f() {\n    // SAFETY: g is fine.\n    let x =\n        unsafe { g() };\n}";
        assert_eq!(check("collector/src/capture/ring.rs", said), [""; 0]);
        let unsaid =
            "fn f() {\n    // SAFETY: h is fine.\n    unsafe { h() };\n    unsafe { g() };\n}";
        let complaints = check("ebpf/src/iov.rs", unsaid);
        assert!(
            complaints.len() == 1 && complaints[0].contains("iov.rs:4"),
            "{complaints:?}"
        );
    }

    #[test]
    fn long_functions_and_files_are_refused() {
        let body = "    g();\n".repeat(FUNCTION_LINES);
        let complaints = check(
            "collector/src/app.rs",
            &format!("#[inline]\nfn f() {{\n{body}}}\n"),
        );
        assert!(
            complaints.len() == 1 && complaints[0].contains("function"),
            "{complaints:?}"
        );
        let complaints = check(
            "collector/src/app.rs",
            &"// Text.\n".repeat(FILE_REFUSED_LINES + 1),
        );
        assert!(
            complaints.len() == 1 && complaints[0].contains("file"),
            "{complaints:?}"
        );
    }
}

//! Which language runtime a process is: decides how its threads and its TLS are
//! looked at. Nothing else is decided by it.

use super::Error;
use super::naming::{self, Facts};
use super::procfs::Entry;
use object::read::elf::{FileHeader, SectionHeader};
use object::{ReadCache, ReadRef, elf};
use std::fs::File;

/// A language runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Compiled by Go: goroutines move between threads.
    Go,
    /// `CPython` or `PyPy`.
    Python,
    /// Node, Deno or Bun: one event loop.
    Node,
    /// The Java virtual machine.
    Java,
    /// .NET.
    Dotnet,
    /// Ruby.
    Ruby,
    /// PHP, one request a process at a time.
    Php,
    /// Perl.
    Perl,
    /// Erlang and Elixir.
    Beam,
    /// Everything else: C, C++, Rust, shells.
    #[default]
    Native,
}

/// Sections that only Go's linker writes; the first survives `strip`.
const GO_SECTIONS: &[&[u8]] = &[b".go.buildinfo", b".note.go.buildid"];

/// By the name of an interpreter, else by the sections of the executable.
pub(super) fn detect(entry: &Entry, facts: &Facts<'_>) -> Result<Runtime, Error> {
    if let Some(runtime) = naming::interpreter(facts).map(of_interpreter) {
        return Ok(runtime);
    }
    if facts
        .executable
        .and_then(|path| path.file_name())
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"php-fpm"))
    {
        return Ok(Runtime::Php);
    }
    let file = entry.open_executable()?;
    Ok(if is_go(file) {
        Runtime::Go
    } else {
        Runtime::Native
    })
}

fn of_interpreter(name: &str) -> Runtime {
    match name {
        "python" | "pypy" => Runtime::Python,
        "node" | "deno" | "bun" => Runtime::Node,
        "java" => Runtime::Java,
        "dotnet" => Runtime::Dotnet,
        "ruby" => Runtime::Ruby,
        "php" => Runtime::Php,
        "perl" => Runtime::Perl,
        "beam.smp" => Runtime::Beam,
        _ => Runtime::Native,
    }
}

/// Reads the section table and the section names, a few kilobytes. What is no
/// 64-bit little-endian ELF file is not Go for us: we trace no other machines.
fn is_go(file: File) -> bool {
    let cache = ReadCache::new(file);
    has_section(&cache, GO_SECTIONS).unwrap_or(false)
}

fn has_section<'data>(file: impl ReadRef<'data>, names: &[&[u8]]) -> object::Result<bool> {
    let header = elf::FileHeader64::<object::LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, file)?;
    Ok(sections.iter().any(|section| {
        sections
            .section_name(endian, section)
            .is_ok_and(|name| names.contains(&name))
            && section.sh_size(endian) > 0
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_program_and_a_text_are_not_go() {
        assert!(!is_go(File::open("/proc/self/exe").unwrap()));
        assert!(!is_go(File::open("/etc/passwd").unwrap()));
    }

    #[test]
    fn sections_are_found_by_name() {
        let executable = std::fs::read("/proc/self/exe").unwrap();
        assert!(has_section(executable.as_slice(), &[b".text"]).unwrap());
        assert!(!has_section(executable.as_slice(), &[b".none"]).unwrap());
    }

    #[test]
    fn a_broken_executable_is_not_go() {
        let executable = std::fs::read("/proc/self/exe").unwrap();
        for length in [0, 4, 63, 64, 1000, 100_000] {
            let cut = executable.get(..length).unwrap_or_default();
            assert!(!has_section(cut, GO_SECTIONS).unwrap_or(false), "{length}");
        }
    }
}

//! Which language runtime a process is: decides how its threads and its TLS are
//! looked at. Nothing else is decided by it.

use super::Error;
use super::naming::{self, Facts};
use super::procfs::Entry;
use object::read::elf::{FileHeader, SectionHeader};
use object::{ReadCache, ReadRef, elf};
use std::str;

/// A language runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Compiled by Go: goroutines move between threads.
    Go(GoVersion),
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

/// Which Go 1.x compiled a program; 0: a Go that we cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoVersion {
    /// 26 of `go1.26.8`
    pub minor: u16,
}

/// Sections that only Go's linker writes; the first survives `strip`, and names the version.
const GO_BUILD_INFO: &[u8] = b".go.buildinfo";
const GO_BUILD_ID: &[u8] = b".note.go.buildid";

/// How `.go.buildinfo` begins (`debug/buildinfo`).
const BUILD_INFO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// Byte of the section that holds its flags, and the one for strings that stand in the section,
/// from Go 1.18 on.
const BUILD_INFO_FLAGS: usize = 15;
const INLINE_STRINGS: u8 = 2;
/// Where the version stands then: a byte for its length (below 128), and text.
const BUILD_INFO_VERSION: usize = 32;
/// What is read of the section: the version is rarely longer than `go1.26.8`.
const BUILD_INFO_BYTES: u64 = BUILD_INFO_VERSION as u64 + 1 + 127;

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
    let cache = ReadCache::new(entry.open_executable()?);
    Ok(go_version(&cache)
        .ok()
        .flatten()
        .map_or(Runtime::Native, Runtime::Go))
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

/// Reads the section table and the section names, a few kilobytes. What is no 64-bit little-endian
/// ELF file is not Go for us: we trace no other machines.
fn go_version<'data>(file: impl ReadRef<'data>) -> object::Result<Option<GoVersion>> {
    let header = elf::FileHeader64::<object::LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, file)?;
    let mut of_go = None;
    for section in sections.iter() {
        let name = sections.section_name(endian, section).unwrap_or_default();
        let size = section.sh_size(endian);
        if size == 0 {
            continue;
        }
        if name == GO_BUILD_INFO {
            let bytes = file
                .read_bytes_at(section.sh_offset(endian), size.min(BUILD_INFO_BYTES))
                .unwrap_or_default();
            return Ok(Some(version_in(bytes).unwrap_or_default()));
        }
        if name == GO_BUILD_ID {
            of_go = Some(GoVersion::default());
        }
    }
    Ok(of_go)
}

/// The version that build information tells; none before Go 1.18, which wrote only where it stands.
fn version_in(build_info: &[u8]) -> Option<GoVersion> {
    let flags = build_info.get(BUILD_INFO_FLAGS)?;
    if !build_info.starts_with(BUILD_INFO_MAGIC) || flags & INLINE_STRINGS == 0 {
        return None;
    }
    let (length, text) = build_info.get(BUILD_INFO_VERSION..)?.split_first()?;
    let text = str::from_utf8(text.get(..usize::from(*length))?).ok()?;
    // Also of `devel go1.27-a1b2c3d`.
    let (_, minor) = text.split_once("go1.")?;
    let end = minor
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(minor.len());
    let minor = minor.get(..end)?.parse().ok()?;
    Some(GoVersion { minor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn build_info(version: &str) -> Vec<u8> {
        let mut bytes = BUILD_INFO_MAGIC.to_vec();
        bytes.extend([8, INLINE_STRINGS]);
        bytes.resize(BUILD_INFO_VERSION, 0);
        bytes.push(u8::try_from(version.len()).unwrap());
        bytes.extend(version.as_bytes());
        bytes
    }

    #[test]
    fn the_version_is_read_from_build_information() {
        for (text, minor) in [
            ("go1.21", Some(21)),
            ("go1.26.8", Some(26)),
            ("go1.27rc1 X:nodwarf5", Some(27)),
            ("devel go1.28-a1b2c3d", Some(28)),
            ("go2", None),
            ("go1.99999999", None),
            ("", None),
        ] {
            let found = version_in(&build_info(text));
            assert_eq!(found.map(|version| version.minor), minor, "{text}");
        }
        let bytes = build_info("go1.26.8");
        for length in 0..bytes.len() {
            assert_eq!(version_in(bytes.get(..length).unwrap()), None);
        }
    }

    #[test]
    fn a_rust_program_and_a_text_are_not_go() {
        let file = ReadCache::new(File::open("/proc/self/exe").unwrap());
        assert_eq!(go_version(&file).unwrap(), None);
        let file = ReadCache::new(File::open("/etc/passwd").unwrap());
        assert!(go_version(&file).is_err());
    }

    #[test]
    fn a_broken_executable_is_not_go() {
        let executable = std::fs::read("/proc/self/exe").unwrap();
        for length in [0, 4, 63, 64, 1000, 100_000] {
            let cut = executable.get(..length).unwrap_or_default();
            assert_eq!(go_version(cut).ok().flatten(), None, "{length}");
        }
    }
}

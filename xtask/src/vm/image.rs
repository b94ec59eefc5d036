//! The initial file system of a virtual machine: a cpio archive in the `newc` format that
//! `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux describes.
//!
//! What comes from this machine lies at the same path there, so that programs find what they were
//! built to find.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _, copy};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::run::command;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub struct Image {
    out: BufWriter<File>,
    written: BTreeSet<PathBuf>,
}

impl Image {
    /// Begins it.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            out: BufWriter::new(file),
            written: BTreeSet::new(),
        })
    }

    /// A directory, and those above it.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        if path.parent().is_none() || self.written.contains(path) {
            return Ok(());
        }
        self.above(path)?;
        self.entry(path, DIRECTORY, 0)
    }

    /// A file with this content, which may be run.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.above(path)?;
        self.entry(path, PROGRAM, content.len() as u64)?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        self.above(path)?;
        self.entry(path, LINK, target.len() as u64)?;
        self.out.write_all(target.as_bytes())?;
        self.pad(target.len() as u64)
    }

    /// A file of this machine, at its own path.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        self.copy_as(path, path)
    }

    /// A file of this machine at another path.
    pub fn copy_as(&mut self, from: &Path, to: &Path) -> Result<()> {
        if self.written.contains(to) {
            return Ok(());
        }
        self.above(to)?;
        let mut file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
        let size = file.metadata()?.len();
        self.entry(to, PROGRAM, size)?;
        let copied = copy(&mut file, &mut self.out)?;
        ensure!(
            copied == size,
            "{} changed while it was read",
            from.display()
        );
        self.pad(size)
    }

    /// A program of this machine with every library that it is linked with.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        let output = command("ldd").arg(path).output().context("running ldd")?;
        // ldd fails on a program without libraries.
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            !text.contains("not found"),
            "{} lacks libraries:\n{text}",
            path.display()
        );
        for word in text.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(word))?;
        }
        Ok(())
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, 0)?;
        self.out.flush().context("writing the image")
    }

    fn above(&mut self, path: &Path) -> Result<()> {
        path.parent()
            .map_or(Ok(()), |parent| self.directory(parent))
    }

    /// The head of an entry. Its time is its number: what was added later is newer.
    fn entry(&mut self, path: &Path, mode: u32, size: u64) -> Result<()> {
        let size = u32::try_from(size)
            .with_context(|| format!("{} is too large for an image", path.display()))?;
        self.written.insert(path.to_owned());
        let number = u32::try_from(self.written.len())?;
        let path = path.strip_prefix("/").unwrap_or(path);
        let name = path.to_str().context("a path is text")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (links, owner, device) = (1, 0, 0);
        let fields = [
            number, mode, owner, owner, links, number, size, device, device, device, device,
            name_size, 0,
        ];
        let fields = fields.map(|field| format!("{field:08x}")).concat();
        let head = format!("070701{fields}{name}\0");
        self.out.write_all(head.as_bytes())?;
        self.pad(head.len() as u64)
    }

    /// Heads and contents are filled up to whole words.
    fn pad(&mut self, size: u64) -> Result<()> {
        let missing = usize::try_from(size.next_multiple_of(4) - size)?;
        Ok(self.out.write_all(&[0; 3][..missing])?)
    }
}

/// The path that names a file without `..`, as it will lie in the image.
pub fn plain(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_linux_reads_them() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("image");
        let mut image = Image::create(&path)?;
        image.file(Path::new("/a/b"), b"hello")?;
        image.link(Path::new("/a/c"), "b")?;
        image.finish()?;
        let text = String::from_utf8(fs::read(&path)?)?;
        let entry = |number: u32, mode: &str, size: u32, name: &str, content: &str| {
            let time = number;
            let head = format!(
                "070701{number:08x}0000{mode}{:016x}00000001{time:08x}{size:08x}{:032x}{:08x}{:08x}{name}\0",
                0,
                0,
                name.len() + 1,
                0
            );
            let filled = |text: &str| {
                let zeros = text.len().next_multiple_of(4) - text.len();
                text.to_owned() + &"\0".repeat(zeros)
            };
            filled(&head) + &filled(content)
        };
        let wanted = [
            entry(1, "41ed", 0, "a", ""),
            entry(2, "81ed", 5, "a/b", "hello"),
            entry(3, "a1ff", 1, "a/c", "b"),
            entry(4, "0000", 0, "TRAILER!!!", ""),
        ];
        assert_eq!(text, wanted.concat());
        Ok(())
    }
}

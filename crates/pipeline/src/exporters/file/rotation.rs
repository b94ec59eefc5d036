//! A file that is put away under a dated name when it is large enough, and what becomes of the
//! files that were put away: `spans.jsonl`, `spans-2026-11-24T23-45-05.123.jsonl`.

use crate::clock;
use crate::component::Check;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `exporters::file::rotation`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rotation {
    /// Size in MiB that a file may reach.
    pub max_megabytes: u64,
    /// Days after which a file that was put away is removed; 0: never.
    pub max_days: u64,
    /// Files that were put away and are kept; 0: all.
    pub max_backups: usize,
    /// The date in their names is local time, not UTC.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            max_megabytes: 100,
            max_days: 0,
            max_backups: 100,
            localtime: false,
        }
    }
}

impl Rotation {
    /// Notes values that cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        if self.max_megabytes == 0 {
            check.error("max_megabytes", "must be above 0");
        }
    }
}

/// The form of the date in a name: `0` is any digit.
const DATE_FORM: &[u8] = b"0000-00-00T00-00-00.000";
const DATE_FORMAT: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// A file that is open for writing behind its end.
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    limit: u64,
    /// The date in the last name: the next is later, also when that file is gone already.
    dated: SystemTime,
    /// It could not be put away the last time.
    stuck: bool,
}

impl RotatingFile {
    /// Goes on with the file that is there, or makes one.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let limit = rotation.max_megabytes.saturating_mul(1 << 20);
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        let opened = Self {
            path: path.to_owned(),
            rotation,
            file,
            size,
            limit,
            dated: SystemTime::UNIX_EPOCH,
            stuck: false,
        };
        opened.remove_old();
        Ok(opened)
    }

    /// Puts the file away and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let after_last = self.dated + Duration::from_millis(1);
        let (backup, dated) = self.free_name(clock::wall().max(after_last))?;
        fs::rename(&self.path, backup)?;
        self.dated = dated;
        self.file = append_to(&self.path)?;
        self.size = 0;
        self.remove_old();
        Ok(())
    }

    /// A name with a date that no file has yet, from this time on, and that date.
    fn free_name(&self, mut now: SystemTime) -> io::Result<(PathBuf, SystemTime)> {
        let zone = if self.rotation.localtime {
            TimeZone::system()
        } else {
            TimeZone::UTC
        };
        loop {
            let date = Timestamp::try_from(now).map_err(io::Error::other)?;
            let date = date.to_zoned_datetime(zone.clone()).strftime(DATE_FORMAT);
            let (stem, ending) = self.name_parts();
            let name = self.path.with_file_name(format!("{stem}-{date}{ending}"));
            if !name.try_exists()? {
                return Ok((name, now));
            }
            now += Duration::from_millis(1);
        }
    }

    /// The name up to the place of the date, and behind it.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            let part = part.unwrap_or_default();
            part.to_string_lossy().into_owned()
        };
        let ending = self.path.extension();
        let dotted = ending.map_or_else(String::new, |ending| {
            format!(".{}", ending.to_string_lossy())
        });
        (text(self.path.file_stem()), dotted)
    }

    /// Removes what was put away too long ago or is too much.
    fn remove_old(&self) {
        let mut backups = self.backups();
        backups.sort_by(|a, b| b.cmp(a)); // The newest first.
        let oldest = match self.rotation.max_days {
            0 => None,
            days => clock::wall().checked_sub(Duration::from_hours(24 * days.min(100_000))),
        };
        let kept = match self.rotation.max_backups {
            0 => usize::MAX,
            kept => kept,
        };
        for (index, (written, path)) in backups.into_iter().enumerate() {
            if (index >= kept || oldest.is_some_and(|oldest| written < oldest))
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(file = %path.display(), %error, "cannot remove an old file");
            }
        }
    }

    /// Files that were put away, and when they were last written.
    fn backups(&self) -> Vec<(SystemTime, PathBuf)> {
        let directory = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let entries = fs::read_dir(directory.unwrap_or(Path::new("."))).into_iter();
        let (stem, ending) = self.name_parts();
        let dated = |name: &str| {
            let date = name.strip_prefix(&stem)?.strip_prefix('-')?;
            is_date(date.strip_suffix(&ending)?).then_some(())
        };
        entries
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().and_then(dated).is_some())
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn is_date(text: &str) -> bool {
    let fits = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    };
    text.len() == DATE_FORM.len() && text.bytes().zip(DATE_FORM).all(fits)
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    /// A chunk is never cut in two, so a file grows beyond the limit only by one that is larger.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            let rotated = self.rotate();
            if let (Err(error), false) = (&rotated, self.stuck) {
                // Better a file that is too large than spans that are lost.
                let file = self.path.display();
                tracing::warn!(%file, %error, "cannot rotate a file, it is written on");
            }
            self.stuck = rotated.is_err();
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_put_away_whole_and_the_oldest_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spans.jsonl");
        for other in ["spans-x.jsonl", "other-2026-11-24T23-45-05.123.jsonl"] {
            fs::write(directory.path().join(other), "").unwrap();
        }
        let rotation = Rotation {
            max_megabytes: 1,
            max_backups: 2,
            ..Rotation::default()
        };
        let mut file = RotatingFile::open(&path, rotation.clone()).unwrap();
        let chunk = |number: u8| vec![number; 400 << 10];
        for number in 0..9 {
            file.write_all(&chunk(number)).unwrap();
        }
        // Two fit a file: 0 1, 2 3, 4 5, 6 7, 8.
        let names = names(directory.path());
        assert_eq!(names.len(), 5, "{names:?}");
        let backups: Vec<&String> = names
            .iter()
            .filter(|name| name.starts_with("spans-2"))
            .collect();
        for (name, first) in backups.iter().zip([4, 6]) {
            let content = fs::read(directory.path().join(name)).unwrap();
            assert!(
                content == [chunk(first), chunk(first + 1)].concat(),
                "{name}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), chunk(8));

        // What is there is gone on with, and counts.
        drop(file);
        let mut file = RotatingFile::open(&path, rotation).unwrap();
        file.write_all(&chunk(9)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [chunk(8), chunk(9)].concat());
    }

    #[test]
    fn what_is_too_old_is_removed_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        for (name, days) in [
            ("spans-2026-01-01T00-00-00.000", 3),
            ("spans-2026-01-02T00-00-00.000", 1),
        ] {
            let old = File::create(directory.path().join(name)).unwrap();
            let written = clock::wall() - Duration::from_hours(24 * days);
            old.set_modified(written).unwrap();
        }
        let rotation = Rotation {
            max_days: 2,
            ..Rotation::default()
        };
        RotatingFile::open(&directory.path().join("spans"), rotation).unwrap();
        assert_eq!(
            names(directory.path()),
            ["spans", "spans-2026-01-02T00-00-00.000"]
        );
    }

    #[test]
    fn a_file_that_cannot_be_put_away_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spans");
        let rotation = Rotation {
            max_megabytes: 1,
            ..Rotation::default()
        };
        let mut file = RotatingFile::open(&path, rotation).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        file.write_all(&[2; 3]).unwrap();
        let moved = fs::read(directory.path().join("moved")).unwrap();
        assert_eq!(moved.len(), (1 << 20) + 3);
    }
}

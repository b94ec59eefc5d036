//! A small file that holds a place on the disk, so that a full disk leaves room to remove records:
//! even that has to be written down somewhere.

use super::salvage::beside;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Enough for the pages that a removal and the opening of a file write anew.
const RESERVE_BYTES: usize = 512 << 10;

/// The place that is held for one store.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// For the store at `path`; nothing is held yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: beside(path, "reserve"),
            held: false,
        }
    }

    /// Takes the place unless it is held already. False: the disk has no room.
    pub fn hold(&mut self) -> bool {
        if !self.held {
            self.held = self.fill().is_ok();
            if !self.held {
                self.release();
            }
        }
        self.held
    }

    /// Gives the place to the store.
    pub fn release(&mut self) {
        self.held = false;
        // Fails only when there is no file, and so nothing to give.
        let _ = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.path);
    }

    /// Written and not only reserved: what is all zero might be left out by the file system.
    fn fill(&self) -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(&vec![0xa5; RESERVE_BYTES])?;
        file.sync_data()
    }
}

//! Programs that tests start. They end, by their own pid, with the test.

use super::Pid;
use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};

pub(super) struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        loop {
            match command.spawn() {
                Ok(child) => return Self(child),
                // Another test forked while a copy of a program was being written,
                // and its child has not executed anything yet.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{command:?}: {error}"),
            }
        }
    }

    pub fn pid(&self) -> Pid {
        Pid(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

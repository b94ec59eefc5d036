//! Programs of `workloads/` that say exactly which calls they made, for tests to compare with.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::compile::{c_program, c_program_as};
use crate::sandbox::{Output, Process, Sandbox};

/// The exit status of a combination that this machine cannot do (no IPv6).
const NOT_POSSIBLE: i32 = 77;

/// A message that a call moved, or a call that failed.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Name of the system call.
    pub call: String,
    /// `read` or `write`.
    pub dir: String,
    /// The descriptor that was given to the call; the socket's own in all but the failing cases.
    pub fd: i32,
    /// Number of the message, of recvmmsg and sendmmsg.
    pub entry: u32,
    /// What the call returned; the message's length, of recvmmsg and sendmmsg.
    pub ret: i64,
    /// 0 unless the call failed.
    pub errno: i32,
    /// Bytes that fit into the buffers.
    pub asked: u64,
    /// Flags given to the call.
    pub flags: i32,
    /// Flags that recvmsg and recvmmsg gave back.
    pub msg_flags: i32,
    /// Whether a tracer that attached at the ready signal should have seen it.
    pub seen: bool,
    /// Inode of the socket.
    pub inode: u64,
    /// Position of the first byte in its direction of the stream, from 0; none for datagrams.
    pub offset: Option<u64>,
    /// Address of this end; empty for unix sockets.
    pub local: String,
    /// Its port.
    pub local_port: u16,
    /// Address of the other end.
    pub peer: String,
    /// Its port.
    pub peer_port: u16,
    /// The first 64 bytes of the message, as hexadecimal digits.
    pub payload: String,
    /// How many bytes of the message are in the buffers.
    pub payload_len: u64,
    /// Their hash: see [`fnv1a`].
    pub hash: String,
}

#[derive(Deserialize)]
struct State {
    state: String,
    peer: u32,
}

/// The hash of [`Made::hash`]: FNV-1a of 64 bits, as 16 hexadecimal digits.
pub fn fnv1a(bytes: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// What `calls` is made of.
pub const CALLS: &str = "workloads/calls.c";
/// What [`compat`] is made of.
pub const COMPAT: &str = "workloads/compat.c";

/// The program that makes calls of the 32-bit table, built for so many bits; not every compiler
/// can do both.
pub fn compat(bits: u8) -> Result<PathBuf> {
    let size = format!("-m{bits}");
    let flags = [&size, "-nostdlib", "-static", "-fno-pie", "-no-pie"];
    c_program_as(&format!("-{bits}"), COMPAT, &flags)
}

/// Every combination `CALL FAMILY PROTO CASE` that makes sense.
pub fn combinations() -> Result<Vec<String>> {
    let program = c_program(CALLS)?;
    let output = Command::new(program)
        .arg("list")
        .output()
        .context("running calls")?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// A running `calls`, which waits for [`Calls::make`].
#[derive(Debug)]
pub struct Calls {
    process: Process,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    made: Vec<Made>,
    peer: u32,
}

impl Calls {
    /// Starts it with a combination; `None` when this machine cannot do that. In the case `old`
    /// the connection exists when this returns, otherwise nothing has happened yet.
    pub fn start(sandbox: &Sandbox, combination: &str) -> Result<Option<Self>> {
        let mut command = Command::new(c_program(CALLS)?);
        command.args(combination.split(' '));
        let mut process = sandbox.spawn(
            &combination.replace(' ', "-"),
            &command,
            Output::Conversation,
        )?;
        let input = process.child.stdin.take().context("stdin is a pipe")?;
        let output = process.child.stdout.take().context("stdout is a pipe")?;
        let output = BufReader::new(output).lines();
        let mut calls = Self {
            process,
            input,
            output,
            made: Vec::new(),
            peer: 0,
        };
        if calls.read_until("ready")? {
            return Ok(Some(calls));
        }
        calls.not_possible().map(|()| None)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process id of the one it talks to.
    pub fn peer(&self) -> u32 {
        self.peer
    }

    /// Lets it make its calls, and gives what it made (in the case `old` also what it made before).
    /// It keeps its sockets open until it is dropped or finished.
    pub fn make(&mut self) -> Result<Vec<Made>> {
        self.input.write_all(b"\n")?;
        ensure!(self.read_until("done")?, "calls ended in the middle");
        Ok(std::mem::take(&mut self.made))
    }

    /// Lets it end, and says when it did not end well.
    pub fn finish(mut self) -> Result<()> {
        self.input.write_all(b"\n")?;
        drop(self.input);
        let status = self.process.child.wait()?;
        self.process.stop()?;
        ensure!(status.success(), "calls ended with {status}");
        Ok(())
    }

    /// Reads up to a state; false when it ended before.
    fn read_until(&mut self, wanted: &str) -> Result<bool> {
        for line in self.output.by_ref() {
            let line = line?;
            let context = || format!("reading {line:?}");
            if line.starts_with("{\"state\"") {
                let State { state, peer } = serde_json::from_str(&line).with_context(context)?;
                ensure!(state == wanted, "calls is {state}, not {wanted}");
                self.peer = peer;
                return Ok(true);
            }
            self.made
                .push(serde_json::from_str(&line).with_context(context)?);
        }
        Ok(false)
    }

    fn not_possible(mut self) -> Result<()> {
        let status = self.process.child.wait()?;
        self.process.stop()?;
        if status.code() == Some(NOT_POSSIBLE) {
            return Ok(());
        }
        bail!("calls ended before it was ready ({status})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), "cbf29ce484222325");
        assert_eq!(fnv1a(b"a"), "af63dc4c8601ec8c");
    }
}

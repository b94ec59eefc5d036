//! Processes and files that leave nothing behind, however their owner ends.
//!
//! Every process runs in a group of its own below one temporary directory and writes its id there
//! before it becomes what it is. An owner that ends in good order stops what it started; when it is
//! killed, a guardian (a shell that reads a pipe whose other end only the owner holds) sees the end
//! of the pipe and does the same. The guardian alone makes the directory and removes it, in either
//! case, so that at no moment nobody would.
//!
//! `PR_SET_PDEATHSIG` was not taken: it follows the thread that started a process, and a test's
//! thread ends before its process does; it does not reach grandchildren either.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long a server may take to listen.
const READY_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

const GUARDIAN: &str = r#"
trap '' HUP INT TERM PIPE
dir=$(mktemp -d "${TMPDIR:-/tmp}/deeptrace-XXXXXX") && mkdir "$dir/pids" && echo "$dir"
while read -r _; do :; done
signal() {
    hit=1
    for file in "$dir"/pids/*; do
        [ -e "$file" ] && kill -s "$1" -- "-$(cat "$file")" 2>/dev/null && hit=0
    done
    return $hit
}
[ -n "$dir" ] || exit
if [ -n "$(ls "$dir"/pids 2>/dev/null)" ]; then
    # Whoever was just being started gets the time to write its id.
    sleep 0.1
    signal TERM
    tries=0
    while [ $tries -lt 30 ] && signal 0; do sleep 0.1; tries=$((tries + 1)); done
fi
# Whoever wrote its id later still makes files while they are removed.
tries=0
while [ $tries -lt 50 ]; do
    signal KILL
    rm -rf -- "$dir" 2>/dev/null && exit
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// A temporary directory, and the guardian of what runs in it.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    guardian: Child,
}

/// Where the output of a process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Both streams to `NAME.log` in the sandbox, shown when the process fails to start.
    Log,
    /// To the owner's.
    Inherited,
    /// Standard output to the owner's, standard error to a pipe.
    PipedErrors,
    /// Standard output to a pipe, standard error to the owner's.
    PipedOutput,
    /// Standard input and output are pipes, standard error goes to the owner's.
    Conversation,
}

impl Sandbox {
    /// Makes the directory and starts the guardian.
    pub fn new() -> Result<Self> {
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .context("starting the guardian (sh)")?;
        let said = guardian.stdout.take().context("stdout is a pipe")?;
        let mut dir = String::new();
        BufReader::new(said).read_line(&mut dir)?;
        let dir = PathBuf::from(dir.trim_end_matches('\n'));
        ensure!(dir.is_dir(), "the guardian made no temporary directory");
        Ok(Self { dir, guardian })
    }

    /// The directory, for files that shall go with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a process in a group of its own. `name` is unique in this sandbox.
    pub fn spawn(&self, name: &str, command: &Command, output: Output) -> Result<Process> {
        let pid_file = self.dir.join("pids").join(name);
        let log = self.dir.join(format!("{name}.log"));
        let mut wrapped = Command::new("sh");
        wrapped
            .arg("-c")
            .arg(r#"echo $$ >"$0" && exec "$@""#)
            .arg(&pid_file)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(command.get_current_dir().unwrap_or(&self.dir))
            .stdin(Stdio::null())
            .process_group(0);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        match output {
            Output::Log => {
                let file = fs::File::create(&log)?;
                wrapped.stdout(file.try_clone()?).stderr(file);
            }
            Output::Inherited => {}
            Output::PipedErrors => {
                wrapped.stderr(Stdio::piped());
            }
            Output::PipedOutput => {
                wrapped.stdout(Stdio::piped());
            }
            Output::Conversation => {
                wrapped.stdin(Stdio::piped()).stdout(Stdio::piped());
            }
        }
        let child = wrapped
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            pid_file,
            log,
            ended: None,
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// A process of a sandbox; dropping it stops it and its group.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// For its pipes.
    pub child: Child,
    pid_file: PathBuf,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// What it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is its group's too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits until somebody listens on `port` in its network namespace.
    pub fn wait_for_port(&mut self, port: u16, interrupted: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if is_listened_on(self.pid(), port) {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended before it listened ({status})\n{}",
                    self.name,
                    self.logged()
                );
            }
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen on port {port}\n{}",
                    self.name,
                    self.logged()
                );
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Waits for its end; `None` when it outlives the limit or the wait is interrupted.
    pub fn wait(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() > deadline || stop.load(Ordering::Relaxed) {
                return Ok(ended);
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Asks the group to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks the group to read its configuration anew.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends the group at once and without asking.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Ends the group: SIGTERM first, SIGKILL when that does not help in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.terminate();
            self.wait(STOP_LIMIT, &AtomicBool::new(false))?;
        }
        // Also for those of the group that outlived its leader.
        self.signal(Signal::KILL);
        let status = match self.ended {
            Some(status) => status,
            None => self.child.wait()?,
        };
        self.ended = Some(status);
        let _ = fs::remove_file(&self.pid_file);
        Ok(status)
    }

    /// What it wrote, when its output goes to a log.
    pub fn logged(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // Gone already is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pid_file.exists() {
            let _ = self.stop();
        }
    }
}

/// Somebody in the network namespace of the process listens on the port.
fn is_listened_on(pid: u32, port: u16) -> bool {
    // `sl local_address rem_address st ...`, addresses as `HEX:PORT`, 0A for LISTEN.
    let listens = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let at_port = words
            .next()
            .is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        at_port && words.nth(1) == Some("0A")
    };
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        text.is_ok_and(|text| text.lines().any(listens))
    })
}

/// Ports that nobody listens on at the moment, all different.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A flag that is never set, for waits that nothing interrupts.
pub fn uninterrupted() -> Arc<AtomicBool> {
    Arc::default()
}

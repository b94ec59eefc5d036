//! Processes that come, go, fork and execute: their spans are there, under the right name.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::collector::{self, Collector, Finished, Options};
use integration_tests::demo::get;
use integration_tests::exported::Span;
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// How soon a new process must be traced.
const PICKED_UP: Duration = Duration::from_secs(1);
const READ_LIMIT: Duration = Duration::from_secs(10);
const PYTHON: &str = "/usr/bin/python3";

/// What the programs below have in common: sockets by hand, so that they do what they say.
const COMMON: &str = r#"
import os, signal, socket, sys, threading, time
last = {}
def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port)); s.listen(64)
    return s
def request(c):
    data = b""
    while b"\r\n\r\n" not in data:
        part = c.recv(4096)
        if not part: return None
        data += part
    last[c] = b"Connection: close" in data
    return data.split(b" ")[1].decode()
def answer(c, text):
    body = text.encode()
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
def serve(c, extra=lambda path: None):
    while (path := request(c)) is not None:
        extra(path)
        answer(c, str(os.getpid()))
        if last.pop(c): break
    c.close()
def forever(s, extra=lambda path: None):
    while True:
        c, _ = s.accept()
        threading.Thread(target=serve, args=(c, extra), daemon=True).start()
port = int(sys.argv[1])
"#;

/// A test's collector and programs.
struct Scene {
    sandbox: Sandbox,
}

impl Scene {
    fn new() -> Result<Option<Self>> {
        if let Some(why) = programs::why_not(&["python3"]).or_else(collector::why_not) {
            println!("skipped: processes that come and go: {why}");
            return Ok(None);
        }
        Ok(Some(Self {
            sandbox: Sandbox::new()?,
        }))
    }

    /// Writes `NAME.py` and starts it.
    fn program(&self, name: &str, body: &str, arguments: &[u16]) -> Result<Process> {
        self.write(name, body)?;
        let mut command = Command::new(PYTHON);
        command.arg("-B").arg(format!("{name}.py"));
        command.args(arguments.iter().map(ToString::to_string));
        self.sandbox.spawn(name, &command, Output::Log)
    }

    fn write(&self, name: &str, body: &str) -> Result<()> {
        let file = self.sandbox.dir().join(format!("{name}.py"));
        fs::write(file, format!("{COMMON}{body}")).context("writing a program")
    }

    /// Everything is traced, as by default, unless there are ports.
    fn collector(&self, ports: &[u16]) -> Result<Collector> {
        let options = Options {
            ports: ports.to_vec(),
            ..Options::default()
        };
        Collector::start(&self.sandbox, &options)
    }
}

fn served<'a>(finished: &'a Finished, port: u16, path: &str) -> Result<&'a Span> {
    let of_path = |span: &&Span| span.is_served_at(port) && span.text("url.path") == path;
    let mut spans = finished.spans.iter().filter(of_path);
    let said = || {
        let all = finished.spans.iter().filter(|span| span.is_served_at(port));
        let all: Vec<_> = all.map(|span| span.text("url.path")).collect();
        format!(
            "{path} is not served, {all:?} are\n{}",
            finished.said.join("\n")
        )
    };
    let span = spans.next().with_context(said)?;
    ensure!(spans.next().is_none(), "{path} is served twice");
    ensure!(span.status == 0, "{span:#?}");
    ensure!(
        span.number("http.response.status_code") == Some(200),
        "{span:#?}"
    );
    Ok(span)
}

/// It is of this service, and of the process that answered.
fn check(finished: &Finished, port: u16, path: &str, service: &str, body: &str) -> Result<()> {
    let span = served(finished, port, path)?;
    ensure!(
        span.service() == service && span.pid().to_string() == body,
        "{path} is of {} ({}), not of {service} ({body})",
        span.service(),
        span.pid()
    );
    Ok(())
}

/// A connection that stays.
struct Kept(TcpStream);

impl Kept {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(Self(stream))
    }

    fn get(&mut self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.0.write_all(request.as_bytes())?;
        let mut bytes = vec![0; 4096];
        let count = self.0.read(&mut bytes)?;
        let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
        let (_, body) = text.split_once("\r\n\r\n").context(text.clone())?;
        Ok(body.to_owned())
    }
}

#[test]
fn a_process_that_starts_later_is_traced_from_its_first_request() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port] = free_ports()?;
    let collector = scene.collector(&[])?;
    let mut app = scene.program("app", "forever(listen(port))", &[port])?;
    app.wait_for_port(port, &uninterrupted())?;
    let first = get(port, "/first")?.body;
    sleep(PICKED_UP);
    let later = get(port, "/later")?.body;
    let finished = collector.stop()?;
    ensure!(first == app.pid().to_string(), "answered by {first}");
    check(&finished, port, "/later", "app", &later)?;
    check(&finished, port, "/first", "app", &first)
}

#[test]
fn a_process_that_a_port_selects_is_traced_with_the_connections_it_had() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port, selected, other] = free_ports()?;
    let body = "
def extra(path):
    if path == '/listen': listen2.append(listen(int(sys.argv[2])))
listen2 = []
forever(listen(port), extra)
";
    let mut app = scene.program("app", body, &[port, selected])?;
    app.wait_for_port(port, &uninterrupted())?;
    let mut bystander = scene.program("bystander", "forever(listen(port))", &[other])?;
    bystander.wait_for_port(other, &uninterrupted())?;
    let mut kept = Kept::open(port)?;
    kept.get("/unseen")?;
    let collector = scene.collector(&[selected])?;
    kept.get("/listen")?;
    sleep(PICKED_UP);
    let answered = kept.get("/seen")?;
    get(other, "/bystander")?;
    let finished = collector.stop()?;
    check(&finished, port, "/seen", "app", &answered)?;
    let spans = finished.spans.iter();
    let paths: Vec<_> = spans.map(|span| span.text("url.path")).collect();
    // The process was selected in the middle of `/listen`.
    let rest: Vec<_> = paths.iter().filter(|path| **path != "/listen").collect();
    ensure!(rest == [&"/seen"], "{paths:?}");
    Ok(())
}

#[test]
fn connections_that_were_there_before_the_collector_are_read() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port] = free_ports()?;
    let mut app = scene.program("app", "forever(listen(port))", &[port])?;
    app.wait_for_port(port, &uninterrupted())?;
    let mut kept = [Kept::open(port)?, Kept::open(port)?];
    kept[0].get("/before")?;
    let collector = scene.collector(&[])?;
    let mut bodies = Vec::new();
    for (number, one) in kept.iter_mut().enumerate() {
        for path in [format!("/{number}/one"), format!("/{number}/two")] {
            bodies.push((path.clone(), one.get(&path)?));
        }
    }
    let finished = collector.stop()?;
    for (path, body) in &bodies {
        check(&finished, port, path, "app", body)?;
    }
    Ok(())
}

#[test]
fn children_are_traced_under_their_own_ids_and_the_name_of_what_they_run() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port, later, executed] = free_ports()?;
    // A worker that was there before, one that is forked later, and one that executes another program.
    let body = "
def fork(port):
    s = listen(port)
    if os.fork() == 0:
        for c in last: c.close()
        forever(s)
def extra(path):
    if path == '/fork': fork(int(sys.argv[2]))
    if path == '/execute' and os.fork() == 0:
        os.execv(sys.executable, [sys.executable, '-B', 'other.py', sys.argv[3]])
s = listen(port)
if os.fork() == 0: forever(s, extra)
signal.pause()
";
    scene.write("other", "forever(listen(port))")?;
    let mut app = scene.program("app", body, &[port, later, executed])?;
    app.wait_for_port(port, &uninterrupted())?;
    let collector = scene.collector(&[port])?;
    let mut bodies = Vec::new();
    for path in ["/fork", "/execute"] {
        bodies.push((port, path, "app", get_when_up(port, path)?));
    }
    bodies.push((later, "/later", "app", get_when_up(later, "/later")?));
    bodies.push((
        executed,
        "/executed",
        "other",
        get_when_up(executed, "/executed")?,
    ));
    let finished = collector.stop()?;
    for (port, path, service, body) in &bodies {
        ensure!(
            *body != app.pid().to_string(),
            "{path} answered by the parent"
        );
        check(&finished, *port, path, service, body)?;
    }
    Ok(())
}

/// Waits without a connection that would be a span of its own.
fn get_when_up(port: u16, path: &str) -> Result<String> {
    let deadline = Instant::now() + READ_LIMIT;
    loop {
        match get(port, path) {
            Ok(reply) => return Ok(reply.body),
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_that_executes_another_program_gets_its_name() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port] = free_ports()?;
    // The listening socket stays, and so does the pid.
    let body = "
s = listen(port)
s.set_inheritable(True)
while True:
    c, _ = s.accept()
    path = request(c)
    if path is None: continue
    answer(c, str(os.getpid()))
    c.close()
    if path == '/last':
        os.execv(sys.executable, [sys.executable, '-B', 'second.py', str(s.fileno())])
";
    scene.write("second", "forever(socket.socket(fileno=port))")?;
    let mut first = scene.program("first", body, &[port])?;
    first.wait_for_port(port, &uninterrupted())?;
    let collector = scene.collector(&[port])?;
    let pid = first.pid().to_string();
    for path in ["/one", "/last", "/after", "/more"] {
        ensure!(get(port, path)?.body == pid, "the pid stays");
    }
    let finished = collector.stop()?;
    for (path, service) in [
        ("/one", "first"),
        ("/last", "first"),
        ("/after", "second"),
        ("/more", "second"),
    ] {
        check(&finished, port, path, service, &pid)?;
    }
    Ok(())
}

#[test]
fn spans_of_a_process_that_exits_right_after_its_response_are_exported() -> Result<()> {
    const TIMES: usize = 20;
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port, forking] = free_ports()?;
    let once = "
c, _ = listen(port).accept()
path = request(c)
answer(c, str(os.getpid()))
os._exit(0)
";
    // A child for each connection, which exits as soon as it has answered.
    let body = "
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
s = listen(port)
while True:
    c, _ = s.accept()
    if os.fork() == 0:
        if request(c) is not None: answer(c, str(os.getpid()))
        os._exit(0)
    c.close()
";
    let mut forker = scene.program("forker", body, &[forking])?;
    forker.wait_for_port(forking, &uninterrupted())?;
    let collector = scene.collector(&[])?;
    let mut bodies = Vec::new();
    for number in 0..TIMES {
        let path = format!("/fork/{number}");
        bodies.push((forking, path.clone(), "forker", get(forking, &path)?.body));
    }
    for number in 0..4 {
        let name = "once";
        let mut process = scene.program(name, once, &[port])?;
        let path = format!("/once/{number}");
        bodies.push((port, path.clone(), name, get_when_up(port, &path)?));
        process.wait(READ_LIMIT, &uninterrupted())?;
        process.stop()?;
    }
    let finished = collector.stop()?;
    for (port, path, service, body) in &bodies {
        check(&finished, *port, path, service, body)?;
        let gone = !Path::new(&format!("/proc/{body}")).exists();
        ensure!(gone, "{service} ({body}) is still there");
    }
    Ok(())
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_a_request_harms_nobody() -> Result<()> {
    let Some(scene) = Scene::new()? else {
        return Ok(());
    };
    let [port, other] = free_ports()?;
    let hangs = "
def extra(path):
    if path == '/hang': time.sleep(60)
forever(listen(port), extra)
";
    let mut victim = scene.program("victim", hangs, &[port])?;
    let mut app = scene.program("app", "forever(listen(port))", &[other])?;
    victim.wait_for_port(port, &uninterrupted())?;
    app.wait_for_port(other, &uninterrupted())?;
    let collector = scene.collector(&[port, other])?;
    let before = get(port, "/before")?.body;
    let mut hanging = Kept::open(port)?;
    hanging
        .0
        .write_all(b"GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")?;
    sleep(Duration::from_millis(100));
    victim.kill();
    victim.wait(READ_LIMIT, &uninterrupted())?;
    let after = get(other, "/after")?.body;
    let finished = collector.stop()?;
    ensure!(finished.status.success(), "{}", finished.said.join("\n"));
    check(&finished, port, "/before", "victim", &before)?;
    check(&finished, other, "/after", "app", &after)?;
    let hang = finished
        .spans
        .iter()
        .find(|span| span.text("url.path") == "/hang");
    let hang = hang.context("the request that was not answered is a span too")?;
    ensure!(
        hang.status == 2 && hang.text("error.type") == "connection_closed",
        "{hang:#?}"
    );
    ensure!(hang.service() == "victim", "{hang:#?}");
    Ok(())
}

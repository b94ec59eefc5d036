//! The demo application: nginx, the storefront (Python), inventory (Node), pricing (C) and Redis.
//! Starts it, asks it, stops it. What a request causes is in [`crate::truth`].

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::compile::{c_program, home};
use crate::network::Network;
use crate::sandbox::{Output, Process, Sandbox, free_ports};
use crate::truth::{Call, product_path};

const REPLY_LIMIT: Duration = Duration::from_secs(15);

/// The programs it needs.
pub const PROGRAMS: [&str; 5] = ["cc", "nginx", "node", "python3", "redis-server"];

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// nginx keeps its connections to the storefront open (and speaks HTTP/1.1 on them); without
    /// it, as nginx does by default, each request gets a connection of its own and HTTP/1.0.
    pub upstream_keepalive: bool,
    /// Set by someone else to make a start in progress give up.
    pub interrupted: Arc<AtomicBool>,
}

/// The running application. Dropping it stops all of it.
#[derive(Debug)]
pub struct Demo {
    /// Where nginx listens.
    pub port: u16,
    /// Where everyone listens: nginx, storefront, inventory, pricing, Redis.
    pub ports: [u16; 5],
    // Dropped in this order: the entrance first, so that nobody calls who is gone.
    processes: Vec<Process>,
    sandbox: Sandbox,
}

/// A reply of the demo.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
}

impl Reply {
    /// What the request really caused.
    pub fn truth(&self) -> Result<Call> {
        Call::from_reply(&self.body)
    }
}

impl Demo {
    /// Starts everything on this host and waits until everything listens.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_in(Sandbox::new()?, None, options)
    }

    /// The same on two hosts: nginx and the storefront on the one behind NAT, all that they call
    /// on the other.
    pub fn start_on(sandbox: Sandbox, network: &Network, options: &Options) -> Result<Self> {
        Self::start_in(sandbox, Some(network), options)
    }

    fn start_in(sandbox: Sandbox, network: Option<&Network>, options: &Options) -> Result<Self> {
        let ports = free_ports()?;
        let [port, storefront, inventory, pricing, redis] = ports;
        // Only a host of its own has nobody else on its other addresses.
        let bind = network.map_or("127.0.0.1", |_| "0.0.0.0");
        let source = home().join("demo");
        let dir = sandbox.dir().to_owned();
        let nginx_conf = nginx_conf(&source, &dir, port, storefront, options.upstream_keepalive)?;

        let mut node = Command::new("node");
        node.arg(source.join("inventory.js"));
        // The system's Python: a version manager's shim would start a shell first.
        let python = Path::new("/usr/bin/python3");
        let mut python = Command::new(if python.exists() {
            python
        } else {
            Path::new("python3")
        });
        python.arg("-B").arg(source.join("storefront.py"));
        let commands = [
            ("redis", redis, redis_command(bind, redis, &dir)),
            (
                "pricing",
                pricing,
                with_ports(
                    Command::new(c_program("demo/pricing.c")?),
                    &[pricing, redis],
                ),
            ),
            (
                "inventory",
                inventory,
                with_ports(node, &[inventory, pricing, redis]),
            ),
            (
                "storefront",
                storefront,
                with_ports(python, &[storefront, inventory, pricing, redis]),
            ),
            ("nginx", port, nginx_command(&dir, &nginx_conf)),
        ];
        let mut demo = Self {
            port,
            ports,
            processes: Vec::new(),
            sandbox,
        };
        for (name, _, command) in &commands {
            let placed = network.map(|network| placed(network, name, command));
            let command = placed.as_ref().unwrap_or(command);
            demo.processes
                .insert(0, demo.sandbox.spawn(name, command, Output::Log)?);
        }
        for (process, (_, port, _)) in demo.processes.iter_mut().zip(commands.iter().rev()) {
            process.wait_for_port(*port, &options.interrupted)?;
        }
        Ok(demo)
    }

    /// The sandbox it runs in, for processes that shall go with it.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The main process of each service, by name. nginx's workers are children of nginx's.
    pub fn pids(&self) -> Vec<(String, u32)> {
        self.processes
            .iter()
            .map(|process| (process.name().to_owned(), process.pid()))
            .collect()
    }

    /// Asks for one product over a connection of its own; the demo runs on this host.
    pub fn product(&self, number: u64) -> Result<Reply> {
        get(self.port, &product_path(number))
    }

    /// Stops it, and says when one of its processes did not end well.
    pub fn stop(mut self) -> Result<()> {
        for process in &mut self.processes {
            let status = process.stop()?;
            ensure!(
                status.success(),
                "{} ended with {status}\n{}",
                process.name(),
                process.logged()
            );
        }
        Ok(())
    }
}

/// `GET path` from a server on the loopback address, over a connection of its own.
pub fn get(port: u16, path: &str) -> Result<Reply> {
    let context = || format!("GET http://127.0.0.1:{port}{path}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(context)?;
    stream.set_read_timeout(Some(REPLY_LIMIT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(context)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(context)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(context)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Reply {
        status: status.with_context(context)?,
        body: body.to_owned(),
    })
}

/// The program on its host, told where the others are.
fn placed(network: &Network, name: &str, command: &Command) -> Command {
    let at_the_front = ["nginx", "storefront"].contains(&name);
    let host = if at_the_front {
        &network.behind_nat
    } else {
        &network.open
    };
    let mut command = host.run(command);
    if !at_the_front {
        command.env("DEMO_BIND", "0.0.0.0");
    } else if name == "storefront" {
        command.env("DEMO_OTHERS", network.open.address.to_string());
    }
    command
}

fn with_ports(mut command: Command, ports: &[u16]) -> Command {
    command.args(ports.iter().map(ToString::to_string));
    command
}

fn redis_command(bind: &str, port: u16, dir: &Path) -> Command {
    let mut command = with_ports(Command::new("redis-server"), &[]);
    command
        .args(["--bind", bind, "--protected-mode", "no"])
        .args(["--port", &port.to_string(), "--dir"])
        .arg(dir);
    command.args([
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--loglevel",
        "warning",
    ]);
    command
}

fn nginx_command(dir: &Path, conf: &Path) -> Command {
    let mut command = Command::new("nginx");
    // Debian keeps it where only root's PATH looks.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
        .args(["-e", "stderr", "-p"])
        .arg(dir)
        .arg("-c")
        .arg(conf);
    command
}

fn nginx_conf(
    source: &Path,
    dir: &Path,
    port: u16,
    upstream: u16,
    keepalive: bool,
) -> Result<PathBuf> {
    let template = source.join("nginx.conf");
    let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    let (pool, options) = if keepalive {
        (
            "keepalive 8;",
            "proxy_http_version 1.1; proxy_set_header Connection \"\";",
        )
    } else {
        ("", "")
    };
    let text = text
        .replace("@PORT@", &port.to_string())
        .replace("@STOREFRONT_PORT@", &upstream.to_string())
        .replace("@UPSTREAM_KEEPALIVE@", pool)
        .replace("@PROXY_OPTIONS@", options);
    let path = dir.join("nginx.conf");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

//! nginx by itself, for load: a static file, a reply from memory, and a way to the latter over a
//! proxy. Its access log says exactly what it has served.

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

const CONFIGURATION: &str = r#"
daemon off;
worker_processes 2;
user root;
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    log_format served '$server_port $request_method $request_uri $status';
    access_log served.log served;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream backend { server 127.0.0.1:@BACK@; keepalive 8; }
    server {
        listen 127.0.0.1:@FRONT@ backlog=1024;
        location /static/ { root .; sendfile on; }
        location /proxied/ {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
    server {
        listen 127.0.0.1:@BACK@ backlog=1024;
        location / { return 200 "hello\n"; }
    }
}
"#;

/// A running nginx. Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    /// Serves `/static/page` from a file and `/proxied/` from the other port.
    pub front: u16,
    /// Answers whatever is asked from memory.
    pub back: u16,
    process: Process,
    log: PathBuf,
}

impl Nginx {
    /// Starts it in the sandbox and waits until it listens.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let [front, back] = free_ports()?;
        let dir = sandbox.dir().join("nginx");
        fs::create_dir_all(dir.join("static")).context("making nginx's directory")?;
        fs::write(dir.join("static/page"), "static\n".repeat(100))?;
        let configuration = CONFIGURATION
            .replace("@FRONT@", &front.to_string())
            .replace("@BACK@", &back.to_string());
        // Relative to its prefix; the default is compiled in.
        let configuration = configuration.replace("root .", &format!("root {}", dir.display()));
        fs::write(dir.join("nginx.conf"), configuration)?;
        let mut command = Command::new("nginx");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.args(["-e", "stderr", "-p"]).arg(&dir);
        command.arg("-c").arg(dir.join("nginx.conf"));
        let mut process = sandbox.spawn("nginx-alone", &command, Output::Log)?;
        process.wait_for_port(front, &uninterrupted())?;
        process.wait_for_port(back, &uninterrupted())?;
        Ok(Self {
            front,
            back,
            process,
            log: dir.join("served.log"),
        })
    }

    /// Ends it, and gives one line a request: port, method, target, status.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.process.stop()?;
        let text = fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Reads one answer off a connection that stays open.
pub fn read_answer(answers: &mut impl BufRead) -> Result<()> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "the connection ended");
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    answers.read_exact(&mut vec![0; length])?;
    Ok(())
}

//! Programs in between, with connections of their own.

use std::fs;
use std::net::SocketAddrV4;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::network::Network;
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, uninterrupted};

use crate::REQUESTS;
use crate::links::{DIRECT, Links, asked_for, check_roots, check_ways};
use crate::scene::{CONNECTIONS, PORT, Scene, skip};

/// nginx on the router, before who answers.
fn nginx(sandbox: &Sandbox, network: &Network, at: SocketAddrV4) -> Result<Process> {
    let dir = sandbox.dir().join("nginx");
    fs::create_dir_all(&dir)?;
    let configuration = format!(
        "daemon off; worker_processes 2; user root; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 256; }}
         http {{
             access_log off;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             upstream answers {{ server {at}; keepalive 8; }}
             server {{
                 listen {PORT};
                 location / {{
                     proxy_pass http://answers;
                     proxy_http_version 1.1;
                     proxy_set_header Connection \"\";
                 }}
             }}
         }}\n"
    );
    fs::write(dir.join("nginx.conf"), configuration)?;
    let mut command = Command::new(programs::find("nginx").context("it was found before")?);
    command.args(["-e", "stderr", "-p"]).arg(&dir);
    command.arg("-c").arg(dir.join("nginx.conf"));
    let command = network.router.run(&command);
    let mut process = sandbox.spawn("nginx", &command, Output::Log)?;
    process.wait_for_port(PORT, &uninterrupted())?;
    Ok(process)
}

/// `HAProxy` on the router, which passes bytes on: another connection, and no request of its own.
fn haproxy(
    sandbox: &Sandbox,
    network: &Network,
    at: SocketAddrV4,
    options: &str,
) -> Result<Process> {
    let file = sandbox.dir().join("haproxy.cfg");
    let configuration = format!(
        "global\n  nbthread 2\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1m\n  timeout server 1m\n{options}\
         listen answers\n  bind {}:{PORT}\n  server one {at}\n",
        network.router.address
    );
    fs::write(&file, configuration)?;
    let mut command = Command::new(programs::find("haproxy").context("it was found before")?);
    command.args(["-db", "-f"]).arg(&file);
    let command = network.router.run(&command);
    let mut process = sandbox.spawn("haproxy", &command, Output::Log)?;
    process.wait_for_port(PORT, &uninterrupted())?;
    Ok(process)
}

fn behind_haproxy(options: &str) -> Result<(Scene, Process)> {
    Scene::with(|sandbox, network, at| {
        let to = SocketAddrV4::new(network.router.address, PORT);
        Ok((to, haproxy(sandbox, network, at, options)?))
    })
}

#[test]
fn a_proxy_of_requests_is_a_hop_of_its_own() -> Result<()> {
    if skip("nginx in between", &["nginx"]) {
        return Ok(());
    }
    let (mut scene, nginx) = Scene::with(|sandbox, network, at| {
        let to = SocketAddrV4::new(network.router.address, PORT);
        Ok((to, nginx(sandbox, network, at)?))
    })?;
    let collector = scene.trace(&[&nginx])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    let [first, last] = DIRECT;
    let hops = [first, ("nginx", "server"), ("nginx", "client"), last];
    check_ways(&finished, &numbers, &hops)?;
    finished.check()
}

#[test]
fn a_proxy_of_bytes_is_a_hop_of_its_own() -> Result<()> {
    if skip("HAProxy in between", &["haproxy"]) {
        return Ok(());
    }
    let (mut scene, haproxy) = behind_haproxy("")?;
    let collector = scene.trace(&[&haproxy])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    for hop in [("haproxy", "server"), DIRECT[1]] {
        let links = Links::at(&finished.spans, hop)?;
        ensure!(links.right == numbers.len(), "{} of {hop:?}", links.right);
    }
    // Inside, what a thread read before it wrote tells whose call it is, and of a new connection what
    // it had read before it connected. HAProxy connects when it has accepted, not for a request: of
    // its first call on a connection nobody knows, and some are linked wrong.
    let inside = Links::at(&finished.spans, ("haproxy", "client"))?;
    let wrong = inside.wrong.iter().map(|[call, _]| *call);
    for call in wrong.chain(inside.without) {
        ensure!(asked_for(call)? < CONNECTIONS, "{call:#?}");
    }
    finished.check()
}

#[test]
fn a_proxy_of_bytes_that_is_not_traced_ends_the_way() -> Result<()> {
    if skip("HAProxy in between, unseen", &["haproxy"]) {
        return Ok(());
    }
    let (mut scene, _haproxy) = behind_haproxy("")?;
    let collector = scene.trace(&[])?;
    let numbers = scene.asker.ask("one_by_one", REQUESTS)?;
    let finished = collector.stop()?;
    check_roots(&finished, &numbers, DIRECT[0], "no_open_request")?;
    check_roots(&finished, &numbers, DIRECT[1], "caller_not_observed")?;
    finished.check()
}

#[test]
fn a_proxy_that_moves_bytes_inside_the_kernel_ends_the_way() -> Result<()> {
    if skip("HAProxy that splices", &["haproxy"]) {
        return Ok(());
    }
    let splice = "  option splice-request\n  option splice-response\n";
    let (mut scene, haproxy) = behind_haproxy(splice)?;
    let collector = scene.trace(&[&haproxy])?;
    let numbers = scene.asker.ask_at_length("one_by_one", REQUESTS, 3000)?;
    let finished = collector.stop()?;
    check_roots(&finished, &numbers, DIRECT[0], "no_open_request")?;
    // What is spliced does not show, so HAProxy has no spans; rarely it reads instead.
    for hop in [("haproxy", "server"), DIRECT[1]] {
        let links = Links::at(&finished.spans, hop)?;
        ensure!(links.wrong.is_empty(), "{:#?}", links.wrong);
    }
    let answered = Links::at(&finished.spans, DIRECT[1])?;
    let (right, without) = (answered.right, answered.without.len());
    println!("{without} requests end at HAProxy, {right} do not");
    ensure!(right + without == numbers.len() && right < without / 10);
    for span in answered.without {
        let reason = span.text("deeptrace.link.reason");
        ensure!(reason == "caller_not_observed", "{span:#?}");
    }
    Ok(())
}

//! Two hosts and a router between them, on one kernel: network namespaces joined by veth.
//!
//! ```text
//! behind_nat 10.77.1.2 --- 10.77.1.1 router 10.77.2.1 --- 10.77.2.2 open
//!                               (masquerades to the right)
//! ```
//! A namespace lives as long as the process that holds it, and the sandbox ends those, so nothing
//! is left behind. Both hosts see all processes of the kernel, as agents on one kernel must; what
//! else belongs to a host (its id and name) is for its agent's configuration.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs;
use crate::sandbox::{Output, Process, Sandbox};

const READY_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why a test that needs the network cannot run, if it cannot.
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    programs::why_not(&["ip", "nft", "nsenter", "unshare", "curl"])
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Where others reach it.
    pub address: Ipv4Addr,
    holder: Process,
}

impl Host {
    fn start(sandbox: &Sandbox, name: &str, address: Ipv4Addr) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec sleep 3600"]);
        let mut holder = sandbox.spawn(name, &command, Output::Log)?;
        let own = namespace("self")?;
        let deadline = Instant::now() + READY_LIMIT;
        // The holder sleeps only in its own namespace, with the loopback device up.
        let ready = |pid: u32| -> Result<bool> {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
            Ok(name.trim() == "sleep" && namespace(&pid.to_string())? != own)
        };
        while !ready(holder.pid()).unwrap_or(false) {
            if let Some(status) = holder.ended()? {
                bail!("no network namespace ({status})\n{}", holder.logged());
            }
            ensure!(Instant::now() < deadline, "{name} is not ready");
            sleep(POLL_INTERVAL);
        }
        Ok(Self { address, holder })
    }

    /// The command, to be run on this host.
    pub fn run(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("nsenter");
        wrapped
            .arg(format!("--net=/proc/{}/ns/net", self.holder.pid()))
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        wrapped
    }

    /// A count that the kernel keeps of this host's network: `TcpRetransSegs`.
    pub fn counted(&self, name: &str) -> Result<u64> {
        // Two lines a group, `Tcp: RetransSegs ...` and `Tcp: 0 ...`.
        let text = self.shell("cat /proc/net/snmp /proc/net/netstat")?;
        let lines: Vec<_> = text.lines().collect();
        let mut pairs = lines.chunks_exact(2).flat_map(|pair| {
            let group = pair[0].split_once(':').map_or("", |(group, _)| group);
            let values = pair[1].split_whitespace().skip(1);
            let names = pair[0].split_whitespace().skip(1);
            names.map(move |name| format!("{group}{name}")).zip(values)
        });
        let found = pairs.find(|(known, _)| known == name);
        let (_, value) = found.with_context(|| format!("nobody counts {name}"))?;
        Ok(value.parse()?)
    }

    /// What a URL answers when it is asked from this host.
    pub fn get(&self, url: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", url]);
        let output = self.run(&curl).output().context("running curl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "GET {url}: {}", errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a script on this host, to its end.
    pub fn shell(&self, script: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-ec", script]);
        // nft stands where only root's PATH looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        let output = self.run(&command).output().context("running nsenter")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script}\n{}", errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn namespace(pid: &str) -> Result<std::path::PathBuf> {
    Ok(std::fs::read_link(format!("/proc/{pid}/ns/net"))?)
}

/// The three of them, wired.
#[derive(Debug)]
pub struct Network {
    /// Reaches the others through an address that is not its own.
    pub behind_nat: Host,
    /// Where both meet.
    pub router: Host,
    /// Reached as it is.
    pub open: Host,
}

impl Network {
    /// Starts the namespaces in the sandbox.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let host = |name, address: [u8; 4]| Host::start(sandbox, name, Ipv4Addr::from(address));
        let network = Self {
            behind_nat: host("behind-nat", [10, 77, 1, 2])?,
            router: host("router", [10, 77, 2, 1])?,
            open: host("open", [10, 77, 2, 2])?,
        };
        let router = network.router.holder.pid();
        for (host, end) in [(&network.behind_nat, "inside"), (&network.open, "outside")] {
            let address = host.address;
            let [a, b, c, _] = address.octets();
            let gateway = Ipv4Addr::from([a, b, c, 1]);
            host.shell(&format!(
                "ip link add eth0 type veth peer name {end} netns {router}
                 ip address add {address}/24 dev eth0
                 ip link set eth0 up"
            ))?;
            network.router.shell(&format!(
                "ip address add {gateway}/24 dev {end}
                 ip link set {end} up"
            ))?;
            host.shell(&format!("ip route add default via {gateway}"))?;
        }
        network.router.shell(
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             nft add table ip nat
             nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
             nft add rule ip nat out oifname outside masquerade",
        )?;
        Ok(network)
    }

    /// Connections of `behind_nat` to `address` go to `to` instead: that is not its own either.
    pub fn redirect(&self, address: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
        self.router.shell(&format!(
            "nft add chain ip nat in '{{ type nat hook prerouting priority -100; }}'
             nft add rule ip nat in ip daddr {} tcp dport {} dnat to {to}",
            address.ip(),
            address.port(),
        ))?;
        Ok(())
    }

    /// Packets between the two hosts are lost when this condition of nft holds.
    pub fn lose(&self, packets: &str) -> Result<()> {
        self.router.shell(&format!(
            "nft add table ip loss
             nft add chain ip loss forward '{{ type filter hook forward priority 0; }}'
             nft add rule ip loss forward '{packets} drop'"
        ))?;
        Ok(())
    }
}

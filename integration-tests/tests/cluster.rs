//! Two hosts, one behind NAT, an agent on each, one linker, two backends that are not ours: every
//! request to the demo application is one whole trace in Jaeger.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::backends::{Jaeger, python_package, start_rotel};
use integration_tests::compile::{home, target_dir};
use integration_tests::demo::{self, Demo, PROGRAMS};
use integration_tests::exported::Span;
use integration_tests::network::{self, Host, Network};
use integration_tests::sandbox::{Output, Process, Sandbox, uninterrupted};
use integration_tests::traces::{ask, check_traces};
use integration_tests::truth::{Call, product_path};
use integration_tests::{collector, programs};

const LINKER_PORT: u16 = 14317;
const ROTEL_PORTS: [u16; 2] = [24317, 24318];
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

fn skip() -> bool {
    let rotel = || {
        python_package("rotel/rotel-agent")
            .is_none()
            .then(|| "no rotel in target/venv; `cargo xtask setup` installs it".to_owned())
    };
    let why = programs::why_not(&PROGRAMS)
        .or_else(collector::why_not)
        .or_else(network::why_not)
        .or_else(Jaeger::why_not)
        .or_else(rotel);
    if let Some(why) = &why {
        println!("skipped: two hosts, a linker, Jaeger and rotel: {why}");
    }
    why.is_some()
}

/// A file of `config/`, with these lines laid over it, validated and run on the host.
fn start(
    sandbox: &Sandbox,
    host: &Host,
    name: &str,
    [program, base]: [&str; 2],
    over: &str,
) -> Result<Process> {
    let site = sandbox.dir().join(format!("{name}.yaml"));
    fs::write(&site, over)?;
    let mut command = Command::new(release(program)?);
    command
        .arg("--config")
        .arg(home().join("../config").join(base));
    command.arg("--config").arg(site);
    sandbox.spawn(name, &host.run(&command), Output::Log)
}

fn release(program: &str) -> Result<PathBuf> {
    let path = target_dir().join("release").join(program);
    path.canonicalize()
        .with_context(|| path.display().to_string())
}

/// The agent of a host, which traces these processes and their children.
fn start_agent(
    sandbox: &Sandbox,
    network: &Network,
    host: &Host,
    id: char,
    pids: &[u32],
) -> Result<Process> {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    let over = format!(
        "receivers:\n  ebpf:\n    host_id: {}\n    host_name: host-{id}\n    \
         select: [{{action: include, pid: [{}]}}]\n\
         exporters:\n  otlp_grpc:\n    endpoint: {}:{LINKER_PORT}\n",
        id.to_string().repeat(32),
        pids.join(", "),
        network.router.address,
    );
    let name = format!("agent-{id}");
    let mut agent = start(
        sandbox,
        host,
        &name,
        ["deeptrace-collector", "agent.yaml"],
        &over,
    )?;
    wait_until_said(&mut agent, "ready")?;
    Ok(agent)
}

fn wait_until_said(process: &mut Process, word: &str) -> Result<()> {
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    while !process.logged().contains(word) {
        let ended = process.ended()?;
        let late = Instant::now() > deadline;
        ensure!(
            ended.is_none() && !late,
            "{}: {}",
            process.name(),
            process.logged()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn requests_across_two_hosts_are_whole_traces_in_two_backends() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let network = Network::start(&sandbox)?;
    let jaeger = Jaeger::start(&sandbox, &network.router)?;
    let mut rotel = start_rotel(&sandbox, Some(&network.router), "127.0.0.1", ROTEL_PORTS)?;
    let mut linker = start_linker(&sandbox, &network)?;
    let demo = Demo::start_on(Sandbox::new()?, &network, &demo::Options::default())?;
    let (front, back): (Vec<_>, Vec<_>) = demo
        .pids()
        .into_iter()
        .partition(|(name, _)| ["nginx", "storefront"].contains(&name.as_str()));
    let pids = |of: &[(String, u32)]| of.iter().map(|(_, pid)| *pid).collect::<Vec<_>>();
    let mut agents = [
        start_agent(&sandbox, &network, &network.behind_nat, 'a', &pids(&front))?,
        start_agent(&sandbox, &network, &network.open, 'b', &pids(&back))?,
    ];
    let truths = ask(|number| {
        let url = format!("http://127.0.0.1:{}{}", demo.port, product_path(number));
        Call::from_reply(&network.behind_nat.get(&url)?)
    })?;
    for agent in &mut agents {
        let status = agent.stop()?;
        ensure!(status.success(), "{status}\n{}", agent.logged());
    }
    demo.stop()?;
    let count = truths.values().map(|truth| truth.count().spans(true)).sum();
    let spans = jaeger.traces("nginx", count, ARRIVAL_LIMIT)?;
    let said = || agents.each_ref().map(Process::logged).join("\n") + &linker.logged();
    check_traces(&spans, &truths).with_context(said)?;
    check_readable(&spans)?;
    check_dependencies(&jaeger)?;
    check_rotel(&mut rotel, count)?;
    let status = linker.stop()?;
    ensure!(status.success(), "{status}\n{}", linker.logged());
    println!("{count} spans in {} traces over two hosts", truths.len());
    Ok(())
}

/// Jaeger has the usual ports on the router.
fn start_linker(sandbox: &Sandbox, network: &Network) -> Result<Process> {
    let over = format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: {}:{LINKER_PORT}\n      \
         http:\n        endpoint: 127.0.0.1:0\n\
         exporters:\n  otlp_grpc:\n    endpoint: 127.0.0.1:{}\n  otlp_http:\n    \
         endpoint: http://127.0.0.1:{}\n\
         extensions:\n  health_check:\n    endpoint: localhost:23133\n\
         service:\n  telemetry:\n    metrics:\n      level: none\n  \
         pipelines:\n    traces:\n      exporters: [otlp_grpc, otlp_http]\n",
        network.router.address,
        Jaeger::GRPC_PORT,
        ROTEL_PORTS[1],
    );
    let files = ["deeptrace-span-linker", "span-linker.yaml"];
    let mut linker = start(sandbox, &network.router, "linker", files, &over)?;
    linker.wait_for_port(LINKER_PORT, &uninterrupted())?;
    Ok(linker)
}

/// Jaeger has nothing to say against any span, and both hosts are there.
fn check_readable(spans: &[Span]) -> Result<()> {
    for span in spans {
        let warned = span
            .attributes
            .keys()
            .find(|key| key.starts_with("@jaeger"));
        let parent = spans
            .iter()
            .find(|other| other.span_id == span.parent_span_id);
        ensure!(warned.is_none(), "Jaeger warns: {span:#?} of {parent:#?}");
    }
    let hosts: BTreeSet<_> = spans
        .iter()
        .filter_map(|span| span.resource.get("host.id")?.as_str())
        .collect();
    ensure!(hosts.len() == 2, "spans of {hosts:?}");
    Ok(())
}

fn check_dependencies(jaeger: &Jaeger<'_>) -> Result<()> {
    let edges = jaeger.dependencies()?;
    let wanted = [
        ("nginx", "storefront"),
        ("storefront", "inventory"),
        ("storefront", "pricing"),
        ("storefront", "redis-server"),
        ("inventory", "pricing"),
        ("inventory", "redis-server"),
        ("pricing", "redis-server"),
    ];
    let found: BTreeSet<_> = edges
        .iter()
        .filter(|(caller, callee, calls)| *calls > 0 && caller != callee)
        .map(|(caller, callee, _)| (caller.as_str(), callee.as_str()))
        .collect();
    ensure!(found == BTreeSet::from(wanted), "{edges:?}");
    Ok(())
}

fn check_rotel(rotel: &mut Process, count: usize) -> Result<()> {
    let printed = |rotel: &Process| rotel.logged().matches("Parent ID").count();
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    while printed(rotel) < count && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(
        printed(rotel) == count,
        "rotel has {} spans, not {count}",
        printed(rotel)
    );
    rotel.stop()?;
    Ok(())
}

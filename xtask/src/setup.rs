//! `cargo xtask setup`: finds what is missing and installs it.
//!
//! Every step looks first and does nothing when it finds what it needs. What cannot be installed is
//! reported together with how to get it. Services are never started: Debian's packages would start
//! theirs, so while apt works a `policy-rc.d` forbids it (unless the machine has its own); a package
//! that was installed here is still enabled for the next boot, as apt leaves it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use integration_tests::backends::{JAEGER_VERSION, jaeger_program};
use integration_tests::programs::find;

use crate::run::{self, Interrupt, cargo, command, root, target_dir};

const BPF_LINKER: &str = "0.10.3";

/// A program, the Debian package that has it, and the first of these that needs it.
struct Program {
    name: &'static str,
    package: &'static str,
    first_for: For,
}

/// What programs are for; each needs those of the former ones too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Demo,
    Tests,
    VirtualMachines,
}

const fn program(name: &'static str, package: &'static str, first_for: For) -> Program {
    Program {
        name,
        package,
        first_for,
    }
}

const PROGRAMS: [Program; 12] = [
    program("cc", "gcc libc6-dev", For::Demo),
    program("nginx", "nginx-light", For::Demo),
    program("node", "nodejs", For::Demo),
    program("python3", "python3", For::Demo),
    program("redis-server", "redis-server", For::Demo),
    program("ab", "apache2-utils", For::Tests),
    program("curl", "curl", For::Tests),
    program("haproxy", "haproxy", For::Tests),
    program("ip", "iproute2", For::Tests),
    program("nft", "nftables", For::Tests),
    program("redis-benchmark", "redis-tools", For::Tests),
    program(
        "qemu-system-x86_64",
        "qemu-system-x86",
        For::VirtualMachines,
    ),
];

/// `cargo xtask setup`: everything, and says what it found.
pub fn everything(interrupt: &Interrupt) -> Result<()> {
    let mut setup = Setup {
        interrupt,
        verbose: true,
        missing: Vec::new(),
    };
    setup.building();
    setup.programs(For::Tests);
    setup.step("Python packages for tests", Setup::python_packages);
    setup.step("Jaeger for tests", Setup::jaeger);
    ensure!(
        setup.missing.is_empty(),
        "not everything could be had:\n{}",
        setup.missing.join("\n")
    );
    println!("setup: everything is there");
    Ok(())
}

/// What the demo needs, all of it.
pub fn for_demo(interrupt: &Interrupt) -> Result<()> {
    let mut setup = Setup {
        interrupt,
        verbose: false,
        missing: Vec::new(),
    };
    setup.building();
    setup.programs(For::Demo);
    interrupt.check()?;
    ensure!(
        setup.missing.is_empty(),
        "the demo needs more:\n{}",
        setup.missing.join("\n")
    );
    Ok(())
}

/// What the tests need; gives what could not be had, for the tests that skip themselves then.
pub fn for_tests(interrupt: &Interrupt) -> Result<Vec<String>> {
    let mut setup = Setup {
        interrupt,
        verbose: false,
        missing: Vec::new(),
    };
    setup.building();
    ensure!(
        setup.missing.is_empty(),
        "nothing can be built:\n{}",
        setup.missing.join("\n")
    );
    setup.programs(For::Tests);
    setup.step("Python packages for tests", Setup::python_packages);
    setup.step("Jaeger for tests", Setup::jaeger);
    interrupt.check()?;
    Ok(setup.missing)
}

/// What virtual machines need, all of it.
pub fn for_vm(interrupt: &Interrupt) -> Result<()> {
    let mut setup = Setup {
        interrupt,
        verbose: false,
        missing: Vec::new(),
    };
    setup.building();
    setup.programs(For::VirtualMachines);
    interrupt.check()?;
    ensure!(
        setup.missing.is_empty(),
        "virtual machines need more:\n{}",
        setup.missing.join("\n")
    );
    Ok(())
}

struct Setup<'a> {
    interrupt: &'a Interrupt,
    /// Say what was there already, too.
    verbose: bool,
    missing: Vec<String>,
}

/// What a step found.
enum Found {
    There,
    Installed,
}

impl Setup<'_> {
    fn building(&mut self) {
        self.step(
            "Rust toolchain with rust-src, clippy, rustfmt",
            Self::toolchain,
        );
        self.step("bpf-linker", Self::bpf_linker);
    }

    fn step(&mut self, name: &str, step: impl FnOnce(&Self) -> Result<Found>) {
        match step(self) {
            Ok(Found::There) if !self.verbose => {}
            Ok(Found::There) => println!("setup: {name}: there"),
            Ok(Found::Installed) => println!("setup: {name}: installed"),
            Err(error) => {
                eprintln!("setup: {name}: {error:#}");
                self.missing.push(format!("{name}: {error:#}"));
            }
        }
    }

    fn toolchain(&self) -> Result<Found> {
        let complete = || -> Result<bool> {
            let output = command("rustc").args(["--print", "sysroot"]).output()?;
            let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            let parts = [
                "lib/rustlib/src/rust/library/core",
                "bin/cargo-clippy",
                "bin/rustfmt",
            ];
            Ok(parts.iter().all(|part| sysroot.join(part).exists()))
        };
        if complete().unwrap_or(false) {
            return Ok(Found::There);
        }
        let how = "install rustup (https://rustup.rs) and run `rustup toolchain install` here";
        ensure!(find("rustup").is_some(), "{how}");
        // Without an argument it takes what rust-toolchain.toml says.
        let mut install = command("rustup");
        install
            .args(["toolchain", "install"])
            .env_remove("RUSTUP_TOOLCHAIN");
        run::run(&mut install, self.interrupt).context(how)?;
        Ok(Found::Installed)
    }

    fn bpf_linker(&self) -> Result<Found> {
        let there =
            find("bpf-linker").and_then(|path| command(path).arg("--version").output().ok());
        if there.is_some_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .ends_with(&format!(" {BPF_LINKER}"))
        }) {
            return Ok(Found::There);
        }
        let mut install = cargo();
        install.args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER]);
        run::run(&mut install, self.interrupt)?;
        Ok(Found::Installed)
    }

    fn programs(&mut self, purpose: For) {
        let needed = PROGRAMS
            .iter()
            .filter(|program| program.first_for <= purpose);
        let missing: Vec<_> = needed
            .filter(|program| find(program.name).is_none())
            .collect();
        let packages: Vec<_> = missing
            .iter()
            .flat_map(|program| program.package.split(' '))
            .collect();
        let name = if missing.is_empty() {
            "programs".to_owned()
        } else {
            let names: Vec<_> = missing.iter().map(|program| program.name).collect();
            format!("programs ({})", names.join(", "))
        };
        self.step(&name, |setup| {
            if packages.is_empty() {
                return Ok(Found::There);
            }
            setup.apt(&packages)?;
            for program in &missing {
                ensure!(
                    find(program.name).is_some(),
                    "{} is still not there",
                    program.name
                );
            }
            Ok(Found::Installed)
        });
    }

    fn apt(&self, packages: &[&str]) -> Result<()> {
        let how = format!("install the packages {} yourself", packages.join(" "));
        ensure!(
            find("apt-get").is_some(),
            "there is no apt-get here: {how}, or what your system calls them"
        );
        ensure!(
            rustix::process::geteuid().is_root(),
            "only root may install: run this as root, or {how}"
        );
        println!("setup: installing {}", packages.join(" "));
        let _policy = ServicePolicy::forbid_starting()?;
        let apt = |arguments: &[&str]| {
            let mut apt = command("apt-get");
            apt.args(["-qq", "-y", "-o", "Dpkg::Use-Pty=0"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive");
            run::run(&mut apt, self.interrupt)
        };
        // An index that cannot be renewed may still do.
        if let Err(error) = apt(&["update"]) {
            eprintln!("setup: {error:#}");
        }
        let install = [&["install", "--no-install-recommends"], packages].concat();
        apt(&install).with_context(|| format!("{how} (as root)"))
    }

    /// A virtual environment `target/venv`. The stamp says which requirements it was made from.
    fn python_packages(&self) -> Result<Found> {
        let requirements = root().join("integration-tests/requirements.txt");
        let wanted = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
        let venv = target_dir().join("venv");
        let stamp = venv.join("requirements.txt");
        let works = || {
            command(venv.join("bin/python"))
                .args(["-c", "import grpc"])
                .output()
        };
        // An interpreter that was replaced since finds no package.
        if fs::read(&stamp).is_ok_and(|there| there == wanted)
            && works().is_ok_and(|output| output.status.success())
        {
            return Ok(Found::There);
        }
        let python = if Path::new("/usr/bin/python3").exists() {
            "/usr/bin/python3"
        } else {
            "python3"
        };
        let venv_works = || {
            command(python)
                .args(["-c", "import ensurepip, venv"])
                .output()
        };
        if !venv_works().is_ok_and(|output| output.status.success()) {
            self.apt(&["python3-venv"])?;
        }
        println!("setup: making {}", venv.display());
        let mut make = command(python);
        run::run(
            make.args(["-m", "venv", "--clear"]).arg(&venv),
            self.interrupt,
        )?;
        let mut pip = command(venv.join("bin/pip"));
        pip.args([
            "install",
            "-q",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "-r",
        ]);
        run::run(pip.arg(&requirements), self.interrupt)
            .context("tests that talk to other OTLP programs are skipped without these")?;
        fs::write(stamp, wanted)?;
        Ok(Found::Installed)
    }
}

/// What Jaeger's binary is built from. `go install` refuses its module, which has a `replace`.
const JAEGER_PACKAGE: &str = "github.com/jaegertracing/jaeger";

/// Jaeger, built from its module by a module of our own.
impl Setup<'_> {
    fn jaeger(&self) -> Result<Found> {
        let program = jaeger_program();
        if program.is_file() {
            return Ok(Found::There);
        }
        ensure!(
            find("go").is_some(),
            "the test of whole clusters is skipped without it, and building it needs Go 1.26 or \
             newer: https://go.dev/dl"
        );
        let dir = program.parent().context("the program is in a directory")?;
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let build = tempfile::tempdir_in(dir)?;
        let go_mod =
            format!("module backends\n\ngo 1.26\n\nrequire {JAEGER_PACKAGE} {JAEGER_VERSION}\n");
        fs::write(build.path().join("go.mod"), go_mod)?;
        println!("setup: building Jaeger {JAEGER_VERSION}, which takes minutes, once a machine");
        // The checksum database lacks some of its dependencies, which its own go.sum has.
        let sums = module_dir(build.path())?.join("go.sum");
        fs::write(build.path().join("go.sum"), fs::read(sums)?)?;
        let mut go = command("go");
        go.current_dir(build.path()).env("GOFLAGS", "-mod=mod");
        go.args(["build", "-o", "jaeger"]);
        run::run(
            go.arg(format!("{JAEGER_PACKAGE}/cmd/jaeger")),
            self.interrupt,
        )?;
        fs::rename(build.path().join("jaeger"), &program)?;
        Ok(Found::Installed)
    }
}

/// Where Go keeps the module of Jaeger, after downloading it.
fn module_dir(build: &Path) -> Result<PathBuf> {
    let mut go = command("go");
    go.current_dir(build).args(["mod", "download", "-json"]);
    let output = go
        .arg(format!("{JAEGER_PACKAGE}@{JAEGER_VERSION}"))
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "go mod download: {}",
        errors.trim()
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let dir = answer["Dir"].as_str().context("go names no directory")?;
    Ok(dir.into())
}

/// A `policy-rc.d` of our own, while it lives.
struct ServicePolicy {
    written: Option<PathBuf>,
}

impl ServicePolicy {
    fn forbid_starting() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self { written: None });
        }
        let text = "#!/bin/sh\n# Written by `cargo xtask setup` of Deeptrace while apt runs; not needed after.\nexit 101\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            written: Some(path),
        })
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            let _ = fs::remove_file(path);
        }
    }
}

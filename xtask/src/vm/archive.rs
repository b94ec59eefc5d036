//! Files out of packages of Debian releases that this machine need not run: kernels and busybox.
//!
//! A private apt directory below `target/vm/apt` knows releases from 11 on. Its apt can renew lists
//! and fetch a package, and there is no way here to let it do anything else (see [`Errand`]): a
//! package of another release must never get installed on this machine. The archive is the one that
//! the machine's own apt uses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::programs::find;

use crate::run::{self, Interrupt, command};

/// Suites that have kernels of their own, from 5.10 on. Debian has never released 5.8 or 5.9 other
/// than on its way to 5.10, and keeps no package of them.
const SUITES: [&str; 7] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "forky",
    "sid",
];
/// What the machine's own apt calls Debian's releases.
const RELEASES: [&str; 10] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];
const FLAVOUR: &str = "-cloud-amd64";
/// Asks for the newest kernel that there is.
pub const NEWEST: &str = "newest";

/// All that the private apt does.
enum Errand<'a> {
    Update,
    Download(&'a str),
}

/// The private apt directory, and what was taken out of its packages.
pub struct Archive<'a> {
    dir: PathBuf,
    interrupt: &'a Interrupt,
}

impl<'a> Archive<'a> {
    /// Makes the directories below `dir`.
    pub fn open(dir: &Path, interrupt: &'a Interrupt) -> Result<Self> {
        for below in ["apt/lists/partial", "apt/cache", "files", "packages"] {
            let path = dir.join(below);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            interrupt,
        })
    }

    /// The kernel image of a version (`6.1`, or [`NEWEST`]); what was fetched once is used again.
    pub fn kernel(&self, wanted: &str) -> Result<PathBuf> {
        if wanted != NEWEST
            && let Some(there) = newest(self.fetched()?, wanted)
        {
            return Ok(self.dir.join("files").join(there));
        }
        let suites = match wanted {
            "5.10" => &["bullseye"],
            "6.1" => &["bookworm"],
            "6.12" => &["trixie"],
            _ => &SUITES[..],
        };
        self.update(suites)?;
        let package = newest(self.names()?, wanted);
        let package = package.with_context(|| {
            format!(
                "no linux-image of version {wanted} in {}",
                suites.join(", ")
            )
        })?;
        self.file(&package, "vmlinuz")
    }

    /// A shell and its tools that need no library.
    pub fn busybox(&self) -> Result<PathBuf> {
        let (package, name) = ("busybox-static", "busybox");
        let there = self.dir.join("files").join(package);
        if there.exists() {
            return Ok(there);
        }
        self.update(&["bookworm"])?;
        self.file(package, name)
    }

    /// The file of a package whose name begins so.
    fn file(&self, package: &str, name: &str) -> Result<PathBuf> {
        let wanted = self.dir.join("files").join(package);
        if wanted.exists() {
            return Ok(wanted);
        }
        println!("vm: fetching {package}");
        self.apt(&Errand::Download(package))?;
        let packages = self.dir.join("packages");
        let begins = format!("{package}_");
        let archive = files(&packages)?
            .into_iter()
            .find(|path| begins_with(path, &begins))
            .with_context(|| format!("apt-get download {package} left no file"))?;
        let unpacked = packages.join(package);
        let mut unpack = command("dpkg-deb");
        run::run(
            unpack.arg("-x").arg(&archive).arg(&unpacked),
            self.interrupt,
        )?;
        let found = files(&unpacked)?
            .into_iter()
            .find(|path| begins_with(path, name))
            .with_context(|| format!("{package} has no {name}"))?;
        fs::rename(found, &wanted)?;
        fs::remove_dir_all(unpacked)?;
        fs::remove_file(archive)?;
        Ok(wanted)
    }

    /// Names of what was fetched.
    fn fetched(&self) -> Result<Vec<String>> {
        let names = files(&self.dir.join("files"))?;
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(names.into_iter().filter_map(name).collect())
    }

    /// Names of every package with a kernel. `linux-binary` is what newer ones keep the image in.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for prefix in ["linux-image-", "linux-binary-"] {
            let mut apt = self.private("apt-cache");
            let output = apt.args(["pkgnames", prefix]).output()?;
            ensure!(output.status.success(), "apt-cache: {}", output.status);
            let text = String::from_utf8(output.stdout)?;
            names.extend(text.lines().map(str::to_owned));
        }
        Ok(names)
    }

    /// Renews the lists of these suites. One that is gone from the archive must not take the
    /// others along: what is missing in the end says so by name.
    fn update(&self, suites: &[&str]) -> Result<()> {
        let (archive, options) = own_archive()?;
        let lines = suites
            .iter()
            .map(|suite| format!("deb {options}{archive} {suite} main\n"));
        fs::write(self.dir.join("apt/sources.list"), lines.collect::<String>())?;
        println!("vm: looking for packages of {}", suites.join(", "));
        if let Err(error) = self.apt(&Errand::Update) {
            self.interrupt.check()?;
            eprintln!("vm: {error:#}");
        }
        Ok(())
    }

    fn apt(&self, errand: &Errand<'_>) -> Result<()> {
        let mut apt = self.private("apt-get");
        apt.arg("-qq").current_dir(self.dir.join("packages"));
        match errand {
            Errand::Update => apt.arg("update"),
            Errand::Download(package) => apt.args(["download", package]),
        };
        run::run(&mut apt, self.interrupt)
    }

    /// One of apt's programs on the private directory. Not for others: see the top of the file.
    fn private(&self, program: &str) -> std::process::Command {
        let mut apt = command(program);
        apt.env_remove("APT_CONFIG");
        let apt_dir = self.dir.join("apt");
        let places = [
            ("Dir::Etc::sourcelist", apt_dir.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::Etc::preferencesparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", apt_dir.join("lists")),
            ("Dir::Cache", apt_dir.join("cache")),
        ];
        for (key, path) in places {
            apt.arg("-o").arg(format!("{key}={}", path.display()));
        }
        // The user `_apt` cannot look into everybody's build directory.
        apt.args(["-o", "APT::Sandbox::User=root"]);
        apt
    }
}

/// The address of the machine's own Debian archive, and the options of its line in a sources list.
fn own_archive() -> Result<(String, String)> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        ensure!(
            find(program).is_some(),
            "there is no {program} here: the kernels are Debian packages"
        );
    }
    let format = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SIGNED_BY)";
    let mut apt = command("apt-get");
    apt.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let output = apt.output().context("running apt-get")?;
    for line in String::from_utf8(output.stdout)?.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        if let [address, release, "main", key] = fields[..]
            && RELEASES.contains(&release)
        {
            let options = if key.starts_with('/') {
                format!("[signed-by={key}] ")
            } else {
                String::new()
            };
            return Ok((address.to_owned(), options));
        }
    }
    bail!(
        "no Debian archive among this machine's apt sources, where the kernels would come \
         from; `make vm` needs Debian"
    )
}

/// Every file below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.metadata()?.permissions().mode() & 0o400 != 0 {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn begins_with(path: &Path, text: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(text))
}

/// Of packages with a kernel, the newest whose version begins with the wanted one.
fn newest(packages: Vec<String>, wanted: &str) -> Option<String> {
    let wanted = if wanted == NEWEST {
        Vec::new()
    } else {
        numbers(wanted)
    };
    let of_wanted = packages.into_iter().filter_map(|package| {
        let (kind, version) = package.strip_prefix("linux-")?.split_once('-')?;
        let version = numbers(version.strip_suffix(FLAVOUR)?);
        let whole = kind == "binary" || kind == "image";
        // Where there are both, `linux-image` is empty.
        let key = (version, kind == "binary");
        (whole && key.0.starts_with(&wanted)).then_some((key, package))
    });
    let (_, package) = of_wanted.max()?;
    Some(package)
}

/// `6.12.117+deb13` is 6, 12, 117, 13; a word among them makes it no version.
fn numbers(version: &str) -> Vec<u32> {
    let version = version.replace("+deb", ".");
    let parts: Result<Vec<_>, _> = version.split(['.', '-']).map(str::parse).collect();
    parts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_version_is_chosen_by_number() {
        let packages = || {
            [
                "busybox-static",
                "linux-image-5.10.0-9-cloud-amd64",
                "linux-image-5.10.0-32-cloud-amd64",
                "linux-image-5.10.0-40-amd64",
                "linux-image-5.10.0-40-cloud-amd64-unsigned",
                "linux-image-6.1.0-50-cloud-amd64",
                "linux-image-6.12.9+deb13-cloud-amd64",
                "linux-image-6.19.14+deb13-cloud-amd64",
                "linux-binary-6.19.14+deb13-cloud-amd64",
                "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
                "linux-image-cloud-amd64",
            ]
            .map(str::to_owned)
            .to_vec()
        };
        let cases = [
            ("5.10", Some("linux-image-5.10.0-32-cloud-amd64")),
            ("6.1", Some("linux-image-6.1.0-50-cloud-amd64")),
            ("6.12", Some("linux-image-6.12.9+deb13-cloud-amd64")),
            ("newest", Some("linux-binary-6.19.14+deb13-cloud-amd64")),
            ("5.8", None),
            ("7.3", None),
        ];
        for (wanted, package) in cases {
            assert_eq!(newest(packages(), wanted).as_deref(), package, "{wanted}");
        }
    }
}

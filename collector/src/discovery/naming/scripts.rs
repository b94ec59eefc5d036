//! Finds what an interpreter runs in its command line.
//!
//! Each interpreter is a row of [`INTERPRETERS`]: which of its options eat the
//! next argument, which mean that no script follows. What is no row is no
//! interpreter.

use super::{Facts, file, file_name, launchers, program, titles};
use crate::discovery::environment::Environment;
use std::path::Path;

/// How an interpreter's command line is read.
pub(super) struct Interpreter {
    /// Without the version that distributions append.
    pub name: &'static str,
    /// Whether `-uW x` means `-u -W x`.
    clusters: bool,
    /// Options that eat the next argument.
    values: &'static [&'static str],
    /// Options after which code follows, no script.
    code: &'static [&'static str],
    /// Options whose value is what runs (`-m` module, `-jar` file).
    named: &'static [&'static str],
    /// First words that are no script (`deno run`).
    commands: &'static [&'static str],
}

const PLAIN: Interpreter = Interpreter {
    name: "",
    clusters: true,
    values: &[],
    code: &["-c"],
    named: &[],
    commands: &[],
};

const SHELL: Interpreter = Interpreter {
    values: &["-o", "-O", "--rcfile", "--init-file"],
    ..PLAIN
};

const JAVA_VALUES: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--add-opens",
    "--add-exports",
    "--add-reads",
    "--patch-module",
    "--limit-modules",
    "--source",
    "--enable-native-access",
];

const NODE_VALUES: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--inspect-port",
    "--title",
    "--icu-data-dir",
    "--openssl-config",
    "--input-type",
    "--watch-path",
    "--diagnostic-dir",
    "--redirect-warnings",
    "--trace-event-categories",
    "--unhandled-rejections",
    "--disable-warning",
    "--dns-result-order",
    "--tls-cipher-list",
    "--max-http-header-size",
    "--cpu-prof-dir",
    "--heapsnapshot-signal",
    "--report-dir",
    "--report-directory",
    "--experimental-default-type",
    "--max-old-space-size",
    "--max-semi-space-size",
];

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        name: "python",
        values: &["-W", "-X", "-Q", "--check-hash-based-pycs"],
        named: &["-m"],
        ..PLAIN
    },
    Interpreter {
        name: "pypy",
        values: &["-W", "-X", "-Q", "--jit"],
        named: &["-m"],
        ..PLAIN
    },
    Interpreter {
        name: "node",
        clusters: false,
        values: NODE_VALUES,
        code: &["-e", "--eval", "-p", "--print", "-pe", "--run", "-i"],
        ..PLAIN
    },
    Interpreter {
        name: "java",
        clusters: false,
        values: JAVA_VALUES,
        code: &[],
        named: &["-jar", "-m", "--module"],
        ..PLAIN
    },
    Interpreter {
        name: "dotnet",
        clusters: false,
        code: &[],
        commands: &["exec", "run", "watch", "test"],
        ..PLAIN
    },
    Interpreter {
        name: "ruby",
        values: &["-I", "-r", "-E", "-C", "--encoding"],
        code: &["-e"],
        ..PLAIN
    },
    Interpreter {
        name: "perl",
        values: &["-I"],
        code: &["-e", "-E"],
        ..PLAIN
    },
    Interpreter {
        name: "php",
        values: &["-d", "-c", "-z", "-t", "-S"],
        code: &["-r", "-a", "-R", "-B"],
        named: &["-f"],
        ..PLAIN
    },
    Interpreter {
        name: "deno",
        clusters: false,
        values: &[
            "-c",
            "--config",
            "--import-map",
            "--cert",
            "--lock",
            "--env-file",
        ],
        code: &["eval", "repl", "task"],
        commands: &["run", "serve"],
        ..PLAIN
    },
    Interpreter {
        name: "bun",
        clusters: false,
        values: &["-r", "--preload", "-c", "--config", "--cwd", "--env-file"],
        code: &["-e", "--eval", "x"],
        commands: &["run"],
        ..PLAIN
    },
    Interpreter {
        name: "lua",
        values: &["-l", "-W"],
        code: &["-e"],
        ..PLAIN
    },
    Interpreter {
        name: "luajit",
        values: &["-l", "-j", "-O"],
        code: &["-e"],
        ..PLAIN
    },
    Interpreter {
        name: "beam.smp",
        named: &["-sname", "-name"],
        clusters: false,
        code: &[],
        ..PLAIN
    },
    Interpreter {
        name: "sh",
        ..SHELL
    },
    Interpreter {
        name: "bash",
        ..SHELL
    },
    Interpreter {
        name: "dash",
        ..SHELL
    },
    Interpreter {
        name: "ash",
        ..SHELL
    },
    Interpreter {
        name: "zsh",
        ..SHELL
    },
    Interpreter {
        name: "ksh",
        ..SHELL
    },
];

/// What the command line says is run.
enum Target<'a> {
    /// A script, with its own arguments.
    Script(&'a str, &'a [String]),
    /// The value of one of `named`, with the arguments after it.
    Named(&'a str, &'a [String]),
}

/// Script stems that say nothing; the directory around them is asked.
const GENERIC_STEMS: &[&str] = &["index", "__main__", "manage", "artisan", "rails"];
/// Directories that say nothing either.
const GENERIC_DIRECTORIES: &[&str] = &[
    ".", "..", "bin", "build", "current", "dist", "html", "lib", "out", "public", "scripts", "src",
    "usr", "var", "www",
];
const EXTENSIONS: &[&str] = &[
    ".py", ".pyc", ".pyz", ".js", ".mjs", ".cjs", ".ts", ".mts", ".rb", ".ru", ".pl", ".php",
    ".phar", ".sh", ".jar", ".war", ".dll", ".lua", ".tsx",
];

/// The row of a process. The executable comes first: a script that is executed
/// by its `#!` line gives its own name to the process.
pub(super) fn interpreter_of(facts: &Facts<'_>) -> Option<&'static Interpreter> {
    interpreter(file(facts)).or_else(|| interpreter(program(facts)))
}

/// The row of a program, by its file name with or without a version.
fn interpreter(program: &str) -> Option<&'static Interpreter> {
    let unversioned =
        program.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    let unversioned = match unversioned {
        "nodejs" => "node",
        name => name,
    };
    INTERPRETERS
        .iter()
        .find(|row| row.name == program || row.name == unversioned)
}

/// The name of what an interpreter runs. None: it is none, or runs no file.
pub(super) fn name(environment: &Environment, facts: &Facts<'_>) -> Option<String> {
    let program = program(facts);
    let arguments = facts.arguments.get(1..).unwrap_or_default();
    let Some(interpreter) = interpreter_of(facts) else {
        return launchers::name(program, arguments, environment);
    };
    if let [title] = facts.arguments
        && title.contains(' ')
        && !title.starts_with('/')
    {
        return titles::name(title, environment);
    }
    if interpreter.name == "java"
        && let Some(name) = java_property(arguments)
    {
        return Some(name);
    }
    let runs_module = matches!(interpreter.name, "python" | "pypy");
    match target(interpreter, arguments)? {
        Target::Named(module, rest) if runs_module => {
            launchers::name(module, rest, environment).or_else(|| Some(module_name(module)))
        }
        Target::Named(named, _) if interpreter.name == "beam.smp" => {
            named.split('@').next().map(str::to_owned)
        }
        Target::Named(jar, _) if has_extension(jar, &[".jar", ".war"]) => Some(jar_name(jar)),
        Target::Script(class, _) | Target::Named(class, _) if interpreter.name == "java" => {
            Some(class_name(class))
        }
        Target::Script(script, rest) | Target::Named(script, rest) => {
            launchers::name(file_name(script), rest, environment)
                .or_else(|| script_name(script, environment, facts.working_directory))
        }
    }
}

fn target<'a>(interpreter: &Interpreter, arguments: &'a [String]) -> Option<Target<'a>> {
    let mut rest = arguments;
    while let Some((argument, tail)) = rest.split_first() {
        rest = tail;
        // Erlang's own arguments go on after it.
        if argument == "--" && interpreter.name != "beam.smp" {
            return tail
                .split_first()
                .map(|(script, rest)| Target::Script(script, rest));
        }
        if interpreter.code.contains(&argument.as_str()) {
            return None;
        }
        if !argument.starts_with('-') || argument == "-" {
            match argument.as_str() {
                "" | "-" => return None,
                command if interpreter.commands.contains(&command) => continue,
                file if file.starts_with('@') && interpreter.name == "java" => continue,
                // Erlang's own arguments are all options; their values are not scripts.
                _ if interpreter.name == "beam.smp" => continue,
                script => return Some(Target::Script(script, tail)),
            }
        }
        match option(interpreter, argument) {
            Opt::Flag => {}
            Opt::Value => rest = tail.get(1..).unwrap_or_default(),
            Opt::Code => return None,
            Opt::Named("") => {
                return tail
                    .split_first()
                    .map(|(named, rest)| Target::Named(named, rest));
            }
            Opt::Named(named) => return Some(Target::Named(named, tail)),
        }
    }
    None
}

enum Opt<'a> {
    /// Stands for itself, or brings its value along.
    Flag,
    /// Eats the next argument.
    Value,
    /// No script follows.
    Code,
    /// What runs is its value: here, or when empty in the next argument.
    Named(&'a str),
}

fn option<'a>(interpreter: &Interpreter, argument: &'a str) -> Opt<'a> {
    if interpreter.named.contains(&argument) {
        return Opt::Named("");
    }
    if interpreter.values.contains(&argument) {
        return Opt::Value;
    }
    if !interpreter.clusters || argument.starts_with("--") {
        return Opt::Flag;
    }
    for (at, letter) in argument.char_indices().skip(1) {
        let is_in = |options: &[&str]| {
            options
                .iter()
                .any(|option| option.chars().eq(['-', letter]))
        };
        let attached = argument.get(at + letter.len_utf8()..).unwrap_or_default();
        if is_in(interpreter.code) {
            return Opt::Code;
        }
        if is_in(interpreter.named) {
            return Opt::Named(attached);
        }
        if is_in(interpreter.values) {
            return if attached.is_empty() {
                Opt::Value
            } else {
                Opt::Flag
            };
        }
    }
    Opt::Flag
}

fn script_name(
    script: &str,
    environment: &Environment,
    working_directory: Option<&Path>,
) -> Option<String> {
    if let Some(package) = environment.package_name.as_deref()
        && (script.contains("node_modules/")
            || stem(script) == "index"
            || matches!(script, "." | ".."))
    {
        // `@scope/name`: the scope is the company, not the service.
        return Some(file_name(package).to_owned());
    }
    if let Some((_, tool)) = script.rsplit_once("node_modules/") {
        let tool = tool.strip_prefix(".bin/").unwrap_or(tool);
        return tool
            .split('/')
            .find(|part| !part.starts_with('@'))
            .map(|tool| stem(tool).to_owned());
    }
    if script.starts_with("/dev/fd/") || script.starts_with("/proc/self/fd/") {
        return None;
    }
    let stem = stem(script);
    if !GENERIC_STEMS.contains(&stem) && !matches!(stem, "." | "..") {
        return Some(stem.to_owned());
    }
    directory_name(script, working_directory)
        .or_else(|| Some(stem.to_owned()).filter(|stem| !stem.starts_with('.')))
}

/// The nearest directory around a script that says something.
fn directory_name(script: &str, working_directory: Option<&Path>) -> Option<String> {
    let script = Path::new(script.trim_end_matches('/'));
    let path =
        working_directory.map_or_else(|| script.to_owned(), |directory| directory.join(script));
    let around = if script.ends_with(".") {
        path.as_path()
    } else {
        path.parent()?
    };
    let names = around
        .components()
        .rev()
        .filter_map(|part| part.as_os_str().to_str());
    let says_something = |name: &&str| *name != "/" && !GENERIC_DIRECTORIES.contains(name);
    names.into_iter().find(says_something).map(str::to_owned)
}

pub(super) fn stem(path: &str) -> &str {
    let name = file_name(path);
    let stem = EXTENSIONS
        .iter()
        .find_map(|extension| name.strip_suffix(extension));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(name)
}

fn has_extension(path: &str, extensions: &[&str]) -> bool {
    extensions.iter().any(|extension| path.ends_with(extension))
}

/// `pkg.mod` stays, `pkg.__main__` and `pkg.main` are `pkg`.
fn module_name(module: &str) -> String {
    let short = [".__main__", ".main"]
        .iter()
        .find_map(|suffix| module.strip_suffix(suffix));
    short.unwrap_or(module).to_owned()
}

/// `shop-1.2-SNAPSHOT.jar` is `shop`: cut where a dash is followed by a digit.
fn jar_name(jar: &str) -> String {
    let stem = stem(jar);
    let version = stem.match_indices('-').find(|(at, _)| {
        *at > 0
            && stem
                .get(at + 1..)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    version
        .and_then(|(at, _)| stem.get(..at))
        .unwrap_or(stem)
        .to_owned()
}

/// `com.acme.shop.Server` and `module/com.acme.shop.Server` are `Server`.
fn class_name(class: &str) -> String {
    if has_extension(class, &[".java"]) {
        return file_name(class).trim_end_matches(".java").to_owned();
    }
    let class = file_name(class);
    class
        .rsplit('.')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(class)
        .to_owned()
}

/// Java programs are often told their name by a property.
fn java_property(arguments: &[String]) -> Option<String> {
    ["-Dotel.service.name=", "-Dspring.application.name="]
        .iter()
        .find_map(|property| {
            let value = arguments
                .iter()
                .find_map(|argument| argument.strip_prefix(property))?;
            Some(value.to_owned()).filter(|value| !value.is_empty())
        })
}

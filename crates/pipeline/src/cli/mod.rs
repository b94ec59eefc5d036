//! The command line that every binary made of this crate has: checking, showing and serving a
//! configuration. What a binary has beside it is its own.

mod components;
mod serve;

use crate::component::Factories;
use crate::config::{self, Config, ConfigError, Sources};
use crate::service::{Failure, Service, ServiceError};
use crate::telemetry::{LogError, Metrics};
use clap::{Subcommand, ValueEnum};
use std::fmt;
use std::io::{self, Write as _};

/// A binary.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What configurations may name.
    pub factories: &'static Factories,
}

/// Commands that every binary has; without a command it serves.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Checks a configuration and says everything that is wrong with it.
    Validate(Sources),
    /// Lists the components that a configuration may name, as YAML.
    Components,
    /// Prints the configuration as it will be used: merged, with references followed.
    PrintConfig {
        /// Which.
        #[command(flatten)]
        sources: Sources,
        /// Whether headers, keys, passwords and tokens are shown.
        #[arg(long, value_enum, default_value_t)]
        mode: Mode,
        /// How it is written.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Prints the JSON schema of configurations, for editors.
    Schema,
}

/// `--mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// [REDACTED] stands for every secret.
    #[default]
    Redacted,
    /// All of it.
    Unredacted,
}

/// `--format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No `--config` and no `--set`.
    #[error(
        "no configuration: pass --config FILE (more than one: later ones are laid over earlier ones)"
    )]
    NoConfig,
    /// The configuration is not sound.
    #[error("the configuration cannot be used\n{0}")]
    Config(ConfigError),
    /// Logging was not set up.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// The service did not come up.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A part of the service failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The operating system refuses threads or signals.
    #[error("cannot begin to run")]
    Runtime(#[source] io::Error),
    /// Nobody takes what the command says.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
}

impl Program {
    /// Does what the command line says, or serves the configuration.
    pub fn run(&self, sources: &Sources, command: Option<&Command>) -> Result<(), CliError> {
        match command {
            None => serve::serve(&self.load(sources)?),
            Some(Command::Validate(more)) => self.validate(&sources.and(more)),
            Some(Command::Components) => tell(&components::list(self)),
            Some(Command::PrintConfig {
                sources: more,
                mode,
                format,
            }) => self.print(&sources.and(more), *mode, *format),
            Some(Command::Schema) => tell(&format!("{:#}\n", self.schema())),
        }
    }

    /// Reads the configuration of the command line.
    pub fn load(&self, sources: &Sources) -> Result<Config, CliError> {
        if *sources == Sources::default() {
            return Err(CliError::NoConfig);
        }
        Config::load(sources, self.factories).map_err(CliError::Config)
    }

    /// The JSON schema of configurations for this binary.
    pub fn schema(&self) -> serde_json::Value {
        config::schema(self.factories, &format!("Configuration of {}", self.name))
    }

    fn print(&self, sources: &Sources, mode: Mode, format: Format) -> Result<(), CliError> {
        let config = self.load(sources)?;
        warn(&config);
        let tree = match mode {
            Mode::Redacted => config.tree.redacted(),
            Mode::Unredacted => config.tree,
        };
        tell(&match format {
            Format::Yaml => tree.yaml(),
            Format::Json => tree.json(),
        })
    }

    /// Reads the configuration and builds all of it, without starting any.
    fn validate(&self, sources: &Sources) -> Result<(), CliError> {
        let config = self.load(sources)?;
        warn(&config);
        Service::build(&config, Metrics::default())?;
        let mut lines = vec![format!("{sources}: sound")];
        lines.extend(config.pipelines.iter().map(ToString::to_string));
        tell(&format!("{}\n", lines.join("\n")))
    }
}

/// Says on stderr what works but should be changed.
pub fn warn(config: &Config) {
    for warning in &config.warnings {
        complain(format_args!("warning: {warning}"));
    }
}

/// A line on stderr. Nobody may be there to read it (`| head`, a log pipe that broke), which is
/// no reason to panic as `eprintln!` does.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The answer of a command on stdout. A reader that has gone (`| head`) has had enough.
pub fn tell(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Stdout),
    }
}

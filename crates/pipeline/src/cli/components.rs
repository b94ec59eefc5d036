//! `components`, in the form of the Collector's command of that name.

use super::Program;
use crate::component::Factory;
use crate::config::SCHEMES;
use std::fmt::Write as _;

/// How far every component is, in the Collector's words.
const STABILITY: &str = "Alpha";

/// All component types as YAML.
pub fn list(program: &Program) -> String {
    let mut out = format!(
        "buildinfo:\n    command: {}\n    description: {}\n    version: {}\n",
        program.name, program.description, program.version
    );
    let factories = program.factories;
    section(
        "receivers",
        "traces",
        factories.receivers,
        program,
        &mut out,
    );
    section(
        "processors",
        "traces",
        factories.processors,
        program,
        &mut out,
    );
    section(
        "exporters",
        "traces",
        factories.exporters,
        program,
        &mut out,
    );
    section(
        "extensions",
        "extension",
        factories.extensions,
        program,
        &mut out,
    );
    out.push_str("providers:\n");
    for scheme in SCHEMES {
        let _ = writeln!(out, "    - scheme: {scheme}");
    }
    out
}

fn section<S: ?Sized>(
    name: &str,
    signal: &str,
    factories: &[Factory<S>],
    program: &Program,
    out: &mut String,
) {
    let none = if factories.is_empty() { " []" } else { "" };
    let _ = writeln!(out, "{name}:{none}");
    for factory in factories {
        let path = (factory.type_name)();
        let module = path.split("::").next().unwrap_or(path);
        let _ = write!(
            out,
            "    - name: {}\n      module: {module} v{}\n      stability:\n        \
             {signal}: {STABILITY}\n",
            factory.kind, program.version
        );
    }
}

//! Manifests: dependencies come from the workspace's table, and crates of this repository depend on
//! each other in one direction only.

use std::path::Path;

use super::Complaint;
use super::imports::Table;

/// Workspaces of their own, which cannot inherit, and what they share with the others.
const APART: [&str; 3] = ["crates/ebpf-common", "ebpf", "fuzz"];

/// Checks one manifest. It is read line by line: ours write one dependency a line.
pub fn check(file: &Path, text: &str, table: &Table, complaints: &mut Vec<Complaint>) {
    let folder = file.parent().unwrap_or(Path::new(""));
    if folder.as_os_str().is_empty() || APART.iter().any(|apart| folder.starts_with(apart)) {
        return;
    }
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut section = "";
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        if !section.ends_with("dependencies") || line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut complain = |text: String| complaints.push(Complaint::new(file, number + 1, text));
        if !line.replace(' ', "").contains("workspace=true") {
            complain("a dependency that is not taken from the workspace's table".to_owned());
        }
        let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
        // What tests of a crate use does not change its place in the order.
        let (Some(crates), "dependencies") = (table.crates(), section) else {
            continue;
        };
        if !crates.contains_key(dependency) {
            continue;
        }
        match crates.get(&name) {
            Some(allowed) if allowed.contains(dependency) => {}
            Some(_) => complain(format!(
                "`{name}` may not depend on `{dependency}` (ARCHITECTURE.md)"
            )),
            None => complain(format!(
                "`{name}` is not in the table of crates in ARCHITECTURE.md"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_the_table_and_go_one_way() {
        let architecture = "```imports\n[crates]\ncollector: pipeline\npipeline:\n```";
        let (table, _) = Table::read(Path::new("ARCHITECTURE.md"), architecture);
        let check = |file: &str, text: &str| {
            let mut complaints = Vec::new();
            check(Path::new(file), text, &table, &mut complaints);
            complaints.len()
        };
        let right = "[dependencies]\npipeline.workspace = true\nserde = { workspace = true }";
        assert_eq!(check("collector/Cargo.toml", right), 0);
        assert_eq!(
            check("collector/Cargo.toml", "[dev-dependencies]\nserde = \"1\""),
            1
        );
        assert_eq!(
            check(
                "crates/pipeline/Cargo.toml",
                "[dependencies]\ncollector.workspace = true"
            ),
            1
        );
        assert_eq!(
            check("Cargo.toml", "[workspace.dependencies]\nserde = \"1\""),
            0
        );
        assert_eq!(
            check("ebpf/Cargo.toml", "[dependencies]\naya-ebpf = \"1\""),
            0
        );
    }
}

use super::report::printable;
use super::*;
use crate::discovery::{HostFacts, Limits, Pid, Proc, Selector, Table, Users};

fn healthy() -> Facts {
    Facts {
        release: "6.18.44-fc".into(),
        btf: File::Readable,
        user_id: 0,
        capabilities: u64::MAX,
        lockdown: Some("[none] integrity confidentiality\n".into()),
        unprivileged_bpf_disabled: Some(2),
        perf_event_paranoid: Some(2),
        memlock_bytes: Some(65_536),
        open_files: Some(1024),
        pid_namespace: Some(INITIAL_PID_NAMESPACE),
        cgroups: Cgroups::V2,
        proc_options: Some("rw,relatime".into()),
        kernel_tests: Vec::new(),
    }
}

fn without(capabilities: &[u32]) -> u64 {
    capabilities
        .iter()
        .fold(u64::MAX, |all, capability| all & !(1 << capability))
}

/// A change to a healthy host, and the checks that then give less than a pass.
type Case = (&'static str, fn(&mut Facts), &'static [&'static str]);

fn check(want: Verdict, cases: &[Case]) {
    for (case, change, names) in cases {
        let mut facts = healthy();
        change(&mut facts);
        let checks = diagnose(&facts);
        for check in &checks {
            let has_remedy = !check.remedy.is_empty();
            assert_eq!(
                has_remedy,
                check.verdict > Verdict::Pass,
                "{case}: {}",
                check.name
            );
        }
        let bad: Vec<_> = checks
            .iter()
            .filter(|check| check.verdict > Verdict::Pass)
            .collect();
        let worst = bad.iter().map(|check| check.verdict).max();
        assert_eq!(worst.unwrap_or(Verdict::Pass), want, "{case}");
        let bad: Vec<_> = bad.into_iter().map(|check| check.name).collect();
        assert_eq!(bad, *names, "{case}");
    }
}

fn old_kernel(facts: &mut Facts) {
    facts.release = "5.10.3".into();
}

fn hidden(facts: &mut Facts) {
    facts.proc_options = Some("rw,hidepid=2".into());
}

#[test]
fn what_makes_tracing_impossible_fails() {
    check(
        Verdict::Fail,
        &[
            (
                "old kernel",
                |facts| facts.release = "5.4.0-1".into(),
                &["kernel"],
            ),
            (
                "no BTF",
                |facts| facts.btf = File::Missing,
                &["kernel type information (BTF)"],
            ),
            (
                "BTF denied",
                |facts| facts.btf = File::Denied,
                &["kernel type information (BTF)"],
            ),
            (
                "no CAP_BPF",
                |facts| facts.capabilities = without(&[CAP_BPF, CAP_SYS_ADMIN]),
                &["loading BPF programs"],
            ),
            (
                "lockdown",
                |facts| facts.lockdown = Some("none integrity [confidentiality]".into()),
                &["lockdown"],
            ),
            (
                "memlock",
                |facts| {
                    old_kernel(facts);
                    facts.capabilities = without(&[CAP_SYS_RESOURCE]);
                },
                &["locked memory"],
            ),
            ("no proc", |facts| facts.proc_options = None, &["/proc"]),
            (
                "kernel test",
                |facts| {
                    let test = Check::fail("ring buffer", "refused", "use another kernel");
                    facts.kernel_tests.push(test);
                },
                &["ring buffer"],
            ),
        ],
    );
}

#[test]
fn what_makes_tracing_poorer_warns() {
    check(
        Verdict::Warn,
        &[
            (
                "strange kernel",
                |facts| facts.release = "next".into(),
                &["kernel"],
            ),
            (
                "no ptrace",
                |facts| facts.capabilities = without(&[CAP_SYS_PTRACE]),
                &["looking into processes"],
            ),
            (
                "hidden",
                |facts| {
                    hidden(facts);
                    facts.capabilities = without(&[CAP_SYS_PTRACE]);
                },
                &["looking into processes", "/proc"],
            ),
            (
                "no reading",
                |facts| facts.capabilities = without(&[CAP_DAC_READ_SEARCH]),
                &["reading files of others"],
            ),
            (
                "all may",
                |facts| facts.unprivileged_bpf_disabled = Some(0),
                &["BPF for everybody"],
            ),
            (
                "paranoid",
                |facts| {
                    facts.perf_event_paranoid = Some(4);
                    facts.capabilities = without(&[CAP_SYS_ADMIN]);
                },
                &["perf events"],
            ),
            (
                "few files",
                |facts| facts.open_files = Some(64),
                &["open files"],
            ),
            (
                "container",
                |facts| facts.pid_namespace = Some(4_026_532_500),
                &["pid namespace"],
            ),
            (
                "no cgroups",
                |facts| facts.cgroups = Cgroups::None,
                &["cgroups"],
            ),
        ],
    );
}

#[test]
fn what_is_enough_passes() {
    check(
        Verdict::Pass,
        &[
            ("healthy", |_| {}, &[]),
            ("hidden but seen through", hidden, &[]),
            ("no lockdown", |facts| facts.lockdown = None, &[]),
            (
                "integrity",
                |facts| facts.lockdown = Some("none [integrity] confidentiality".into()),
                &[],
            ),
            (
                "bpf and perfmon",
                |facts| {
                    facts.capabilities = without(&[CAP_SYS_ADMIN]);
                    facts.user_id = 1000;
                },
                &[],
            ),
            (
                "admin",
                |facts| facts.capabilities = without(&[CAP_BPF, CAP_PERFMON]),
                &[],
            ),
            ("memlock is raised", old_kernel, &[]),
            (
                "unlimited",
                |facts| {
                    old_kernel(facts);
                    facts.memlock_bytes = None;
                    facts.open_files = None;
                },
                &[],
            ),
        ],
    );
}

#[test]
fn a_report_is_aligned_and_ends_with_the_verdict() {
    let cells = |cells: [&str; 6]| Row {
        cells: cells.map(str::to_owned),
    };
    let report = Report {
        checks: vec![
            Check::pass("kernel", "6.18"),
            Check::warn("pid namespace", "not the initial one", "use hostPID: true"),
        ],
        processes: vec![
            cells([
                "5",
                "cart",
                "script",
                "python",
                "/usr/bin/python3",
                "rule 1: include everything",
            ]),
            cells([
                "1234",
                "größe",
                "executable",
                "go",
                "/srv/größe",
                "no rule matches: include",
            ]),
        ],
    };
    let want = "\
kernel         ok    6.18
pid namespace  warn  not the initial one
                     -> use hostPID: true

PID   SERVICE  NAMED BY    RUNTIME  EXECUTABLE        SELECTED BY
5     cart     script      python   /usr/bin/python3  rule 1: include everything
1234  größe    executable  go       /srv/größe        no rule matches: include

tracing can work, 1 warnings, 2 processes
";
    assert_eq!(report.to_string(), want);
    assert_eq!(report.exit_code(), 0);
    let checks = vec![Check::fail("kernel", "5.4", "use 5.8")];
    let report = Report {
        checks,
        processes: Vec::new(),
    };
    assert!(
        report
            .to_string()
            .ends_with("tracing cannot work: 1 checks failed, 0 warnings\n")
    );
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn what_others_chose_cannot_command_the_terminal() {
    assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
}

#[test]
fn this_process_is_listed_when_a_rule_selects_it() {
    let own = std::process::id();
    let select = serde_json::from_str(&format!(r#"[{{"action":"include","pid":{own}}}]"#)).unwrap();
    let selector = Selector::new(select, Pid(u32::MAX)).unwrap();
    let proc = Proc::open("/proc").unwrap();
    let mut table = Table::new(
        proc,
        selector,
        HostFacts::probe(),
        Users::probe(),
        Limits::default(),
    );
    table.scan(crate::clock::now_monotonic()).unwrap();
    let report = Report::new(&healthy(), &table);
    let own_row = report
        .processes
        .iter()
        .find(|row| row.cells[0] == own.to_string())
        .unwrap();
    assert!(
        own_row.cells[5].starts_with("rule 1: include pid"),
        "{own_row:?}"
    );
    assert!(report.can_trace());
}

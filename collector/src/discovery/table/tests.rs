use super::super::Select;
use super::super::running::Running;
use super::*;
use crate::clock::UnixNs;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A `/proc` of our own making: pids can be given again at will.
struct FakeProc(TempDir);

impl FakeProc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, pid: u32) -> std::path::PathBuf {
        self.0.path().join(pid.to_string())
    }

    fn start(&self, pid: u32, parent: u32, start: u64, executable: &str) {
        self.end(pid);
        let path = self.path(pid);
        fs::create_dir_all(path.join("fd")).unwrap();
        let name = Path::new(executable).file_name().unwrap().to_str().unwrap();
        let stat = format!("{pid} ({name}) S {parent}{} {start} 0", " 0".repeat(17));
        for (file, text) in [
            ("stat", stat.as_str()),
            ("status", "Uid:\t0\t0\t0\t0\n"),
            ("cmdline", &format!("{name}\0")),
            ("environ", ""),
            ("cgroup", "0::/\n"),
        ] {
            fs::write(path.join(file), text).unwrap();
        }
        symlink(executable, path.join("exe")).unwrap();
    }

    fn end(&self, pid: u32) {
        let _ = fs::remove_dir_all(self.path(pid));
    }

    fn table(&self, select: &str) -> Table {
        self.bounded(select, Limits::default())
    }

    fn bounded(&self, select: &str, limits: Limits) -> Table {
        table_of(Proc::open(self.0.path()).unwrap(), select, limits)
    }
}

fn table_of(proc: Proc, select: &str, limits: Limits) -> Table {
    let select: Select = serde_json::from_str(select).unwrap();
    let selector = Selector::new(select, Pid(std::process::id())).unwrap();
    let host = HostFacts {
        id: "h".into(),
        name: "h".into(),
        arch: "amd64",
        boot_id: "b".into(),
        booted_at: UnixNs(0),
    };
    Table::new(proc, selector, host, Users::default(), limits)
}

fn at(seconds: u64) -> MonotonicNs {
    MonotonicNs(seconds * 1_000_000_000)
}

/// `+5 cart` for traced, `-5` for not traced any more, in the order of pids.
fn said(changes: &[Change]) -> String {
    let mut said: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Trace(traced) => (
                traced.pid,
                format!("+{} {}", traced.pid, traced.service.name),
            ),
            Change::Untrace { pid } => (*pid, format!("-{pid}")),
        })
        .collect();
    said.sort();
    let said: Vec<_> = said.into_iter().map(|(_, text)| text).collect();
    said.join(", ")
}

fn scan(table: &mut Table, seconds: u64) -> String {
    said(&table.scan(at(seconds)).unwrap())
}

const CART: &str = r#"[{"action":"include","executable":"cart"}]"#;

#[test]
fn a_scan_finds_what_is_selected_and_a_second_one_nothing_new() {
    let proc = FakeProc::new();
    proc.start(1, 0, 1, "/sbin/init");
    proc.start(5, 1, 10, "/srv/cart");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "+5 cart");
    assert_eq!(scan(&mut table, 2), "");
    assert_eq!(table.traced().count(), 1);
    assert_eq!(table.known(), 2);
}

#[test]
fn a_scan_notices_every_event_that_was_missed() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 1, 11, "/srv/cart");
    proc.start(7, 1, 12, "/bin/sh");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "+5 cart, +6 cart");
    proc.end(5);
    proc.start(6, 1, 99, "/srv/cart");
    proc.start(7, 1, 12, "/srv/cart");
    proc.start(8, 1, 13, "/srv/cart");
    // What has come and gone is seen at once, what has changed within a few scans.
    let scans: Vec<_> = (0..CHECK_ROUNDS).map(|_| scan(&mut table, 2)).collect();
    assert!(
        scans[0].contains("-5") && scans[0].contains("+8 cart"),
        "{scans:?}"
    );
    let all = scans.join(", ");
    assert!(
        all.contains("+6 cart") && all.contains("+7 cart"),
        "{scans:?}"
    );
    assert_eq!(all.matches('+').count(), 3, "{scans:?}");
    assert_eq!(table.at(Pid(6), at(3)).unwrap().start, Some(StartTicks(99)));
}

#[test]
fn exec_changes_name_and_decision() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/bin/sh");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "");
    proc.start(5, 1, 10, "/srv/cart");
    assert_eq!(said(&table.on_exec(Pid(5), at(2))), "+5 cart");
    assert_eq!(said(&table.on_exec(Pid(5), at(3))), "");
    proc.start(5, 1, 10, "/bin/true");
    assert_eq!(said(&table.on_exec(Pid(5), at(4))), "-5");
    let before = table.at(Pid(5), at(3)).unwrap();
    assert_eq!(before.service.name, "cart");
}

#[test]
fn children_of_a_traced_process_are_traced_whatever_they_execute() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 5, 11, "/bin/worker");
    proc.start(7, 6, 12, "/bin/helper");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "+5 cart, +6 worker, +7 helper");
    proc.start(8, 7, 20, "/bin/helper");
    assert_eq!(said(&table.on_fork(Pid(7), Pid(8), at(2))), "+8 helper");
    proc.start(8, 7, 20, "/bin/tool");
    assert_eq!(said(&table.on_exec(Pid(8), at(3))), "+8 tool");
    // Its parent has gone: it is still a descendant.
    table.on_exit(Pid(7), at(4));
    proc.start(8, 1, 20, "/bin/other");
    assert_eq!(said(&table.on_exec(Pid(8), at(5))), "+8 other");
}

#[test]
fn a_rule_against_a_child_beats_its_parent() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 5, 11, "/bin/log");
    let rules =
        r#"[{"action":"exclude","executable":"log"},{"action":"include","executable":"cart"}]"#;
    let mut table = proc.table(rules);
    assert_eq!(scan(&mut table, 1), "+5 cart");
    proc.start(7, 5, 12, "/srv/cart");
    assert_eq!(said(&table.on_fork(Pid(5), Pid(7), at(2))), "+7 cart");
    proc.start(7, 5, 12, "/bin/log");
    assert_eq!(said(&table.on_exec(Pid(7), at(3))), "-7");
}

#[test]
fn a_forked_child_has_its_parents_name_even_when_it_is_gone_already() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    let mut table = proc.table(CART);
    scan(&mut table, 1);
    assert_eq!(said(&table.on_fork(Pid(5), Pid(6), at(2))), "+6 cart");
    assert_eq!(table.at(Pid(6), at(2)).unwrap().start, None);
    assert_eq!(said(&table.on_exit(Pid(6), at(3))), "-6");
    assert_eq!(table.at(Pid(6), at(2)).unwrap().parent, Pid(5));
}

#[test]
fn late_spans_find_the_process_that_had_the_pid_at_their_time() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    let mut table = proc.table(r#"{"default":"include"}"#);
    scan(&mut table, 1);
    proc.end(5);
    table.on_exit(Pid(5), at(10));
    proc.start(5, 1, 1200, "/srv/shop");
    assert_eq!(said(&table.on_exec(Pid(5), at(12))), "+5 shop");
    let name = |table: &Table, time| {
        table
            .at(Pid(5), at(time))
            .map(|traced| traced.service.name.clone())
    };
    assert_eq!(name(&table, 9).as_deref(), Some("cart"));
    assert_eq!(name(&table, 11).as_deref(), Some("shop"));
    scan(&mut table, 71);
    assert_eq!(name(&table, 9).as_deref(), Some("shop"));
    proc.end(5);
    table.on_exit(Pid(5), at(80));
    assert_eq!(name(&table, 81).as_deref(), Some("shop"));
    scan(&mut table, 141);
    assert_eq!(name(&table, 81), None);
}

#[test]
fn ports_decide_when_they_are_used() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 5, 11, "/srv/cart");
    proc.start(7, 1, 12, "/srv/shop");
    let mut table = proc.table(
        r#"[{"action":"exclude","peer_port":6379},{"action":"include","listen_port":"8000-8999"}]"#,
    );
    assert_eq!(scan(&mut table, 1), "");
    assert_eq!(said(&table.on_listen(Pid(5), 80, at(2))), "");
    assert_eq!(
        said(&table.on_listen(Pid(5), 8080, at(2))),
        "+5 cart, +6 cart"
    );
    assert_eq!(said(&table.on_listen(Pid(5), 8080, at(3))), "");
    assert_eq!(said(&table.on_connect(Pid(5), 5432, at(3))), "");
    assert_eq!(said(&table.on_connect(Pid(5), 6379, at(4))), "-5");
    assert_eq!(said(&table.on_listen(Pid(7), 8081, at(5))), "+7 shop");
    assert_eq!(said(&table.on_listen(Pid(404), 8081, at(5))), "");
}

#[test]
fn limits_refuse_and_count_and_freed_room_is_used() {
    let proc = FakeProc::new();
    for pid in 5..9 {
        proc.start(pid, 1, 10, "/srv/cart");
    }
    let limits = Limits {
        traced: 3,
        known: 4,
        departed: 1,
        ..Limits::default()
    };
    let mut table = proc.bounded(CART, limits);
    scan(&mut table, 1);
    assert_eq!(table.traced().count(), 3);
    assert_eq!(table.counts().refused_traced, 1);
    let gone: Vec<Pid> = table.traced().map(|traced| traced.pid).take(2).collect();
    for pid in gone {
        proc.end(pid.0);
        table.on_exit(pid, at(2));
    }
    assert_eq!(table.counts().departed_evicted, 1);
    scan(&mut table, 3);
    assert_eq!(table.traced().count(), 2);
    for pid in 20..30 {
        proc.start(pid, 1, 10, "/bin/sh");
    }
    assert_eq!(scan(&mut table, 4), "");
    assert_eq!(table.known(), 4);
    assert_eq!(table.counts().refused_known, 8);
}

#[test]
fn a_process_seen_in_the_middle_of_exec_is_looked_at_again() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/usr/bin/python3");
    fs::write(proc.path(5).join("cmdline"), "").unwrap();
    let mut table = proc.table("[]");
    assert_eq!(scan(&mut table, 1), "+5 python3");
    fs::write(proc.path(5).join("cmdline"), "python3\0app.py\0").unwrap();
    assert_eq!(scan(&mut table, 2), "+5 app");
    assert_eq!(scan(&mut table, 3), "");
}

#[test]
fn a_process_that_cannot_be_read_is_counted_and_left_alone() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    fs::write(proc.path(5).join("stat"), "nonsense").unwrap();
    let mut table = proc.table("[]");
    assert_eq!(scan(&mut table, 1), "");
    table.on_exec(Pid(6), at(1));
    let counts = Counts {
        gone: 1,
        unreadable: 1,
        ..Counts::default()
    };
    assert_eq!(table.counts(), counts);
}

#[test]
fn a_real_program_is_found_by_a_scan_and_lost_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("checkout");
    fs::copy("/bin/sleep", &program).unwrap();
    let running = Running::start(Command::new(&program).arg("60"));
    let pid = running.pid();
    let select = format!(
        r#"[{{"action":"include","executable":"{}"}}]"#,
        program.display()
    );
    let mut table = table_of(Proc::open("/proc").unwrap(), &select, Limits::default());
    assert_eq!(scan(&mut table, 1), format!("+{pid} checkout"));
    drop(running);
    assert_eq!(scan(&mut table, 2), format!("-{pid}"));
}

#[test]
fn other_rules_leave_what_stays_selected_as_it_is() {
    let proc = FakeProc::new();
    proc.start(1, 0, 1, "/sbin/init");
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 5, 11, "/bin/worker");
    proc.start(7, 1, 12, "/srv/shop");
    proc.start(8, 7, 13, "/bin/sh");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "+5 cart, +6 worker");
    let cases = [
        (CART, ""),
        (
            r#"[{"action":"include","executable":["cart", "shop"]}]"#,
            "+7 shop, +8 sh",
        ),
        (r#"[{"action":"include","executable":"shop"}]"#, "-5, -6"),
        (r#"[{"action":"exclude"}]"#, "-7, -8"),
        (CART, "+5 cart, +6 worker"),
    ];
    for (rules, expected) in cases {
        let selector = Selector::new(serde_json::from_str(rules).unwrap(), Pid(99)).unwrap();
        let changes = table.reselect(selector, at(2)).unwrap();
        assert_eq!(said(&changes), expected, "{rules}");
    }
    assert_eq!(table.traced().count(), 2);
    let late = table.at(Pid(7), at(1)).unwrap();
    assert_eq!(late.service.name, "shop", "its spans may still come");
}

#[test]
fn a_child_whose_parent_is_gone_stays_traced_under_other_rules() {
    let proc = FakeProc::new();
    proc.start(5, 1, 10, "/srv/cart");
    proc.start(6, 5, 11, "/bin/worker");
    let mut table = proc.table(CART);
    assert_eq!(scan(&mut table, 1), "+5 cart, +6 worker");
    proc.end(5);
    proc.start(6, 1, 11, "/bin/worker");
    assert_eq!(scan(&mut table, 2), "-5");
    let rules = r#"[{"action":"include","executable":["cart", "shop"]}]"#;
    let selector = Selector::new(serde_json::from_str(rules).unwrap(), Pid(99)).unwrap();
    assert_eq!(said(&table.reselect(selector, at(3)).unwrap()), "");
    assert_eq!(table.traced().count(), 1);
}

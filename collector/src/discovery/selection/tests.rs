use super::super::{Container, StartTicks};
use super::*;

const OWN: Pid = Pid(99);

fn selector(json: &str) -> Selector {
    Selector::new(serde_json::from_str(json).unwrap(), OWN).unwrap()
}

fn process(pid: u32, executable: &str, container: Option<&str>) -> Process {
    Process {
        pid: Pid(pid),
        parent: Pid(1),
        start: StartTicks(1),
        short_name: "x".into(),
        executable: Some(executable.into()),
        container: container.map(|id| Container {
            id: id.into(),
            pod_uid: None,
        }),
        kernel_thread: false,
    }
}

fn ports(listening: &[u16], peers: &[u16]) -> Ports {
    Ports {
        listening: listening.iter().copied().collect(),
        peers: peers.iter().copied().collect(),
    }
}

/// Decides about `/srv/bin/cart`, pid 5, container `abcd...`, listening on 8080, connected to 5432.
fn check(json: &str, want: bool, rule: Option<usize>) {
    let process = process(5, "/srv/bin/cart", Some("abcdef0123"));
    let decision = selector(json).decide(&process, &ports(&[8080], &[5432]));
    assert_eq!(
        (decision.include, decision.rule),
        (want, rule),
        "{json}: {}",
        decision.why
    );
}

#[test]
fn each_condition_matches_and_misses() {
    let cases = [
        ("pid", "5", "6"),
        ("pid", "[4,5]", "[4,6]"),
        ("executable", r#""cart""#, r#""srv""#),
        ("executable", r#""ca*""#, r#""car""#),
        ("executable", r#""*/cart""#, r#""/bin/*""#),
        ("executable", r#""/srv/**""#, r#""bin/cart""#),
        ("executable", r#"["nginx","cart"]"#, r#"["nginx"]"#),
        ("listen_port", "8080", "80"),
        ("listen_port", r#""8000-8999""#, r#""8081-9000""#),
        ("listen_port", r#"["80-90",8080]"#, r#"[80,"443"]"#),
        ("listen_port", r#""80,8080""#, r#""80, 443""#),
        ("peer_port", "5432", "8080"),
        ("container", r#""abcd""#, r#""bcde""#),
        ("container", r#""*""#, r#""ffff*""#),
        ("container", r#""*0123""#, r#""0123""#),
    ];
    for (key, hit, miss) in cases {
        check(
            &format!(r#"[{{"action":"include","{key}":{hit}}}]"#),
            true,
            Some(0),
        );
        check(
            &format!(r#"[{{"action":"include","{key}":{miss}}}]"#),
            false,
            None,
        );
        check(
            &format!(r#"[{{"action":"exclude","{key}":{hit}}}]"#),
            false,
            Some(0),
        );
        check(
            &format!(r#"[{{"action":"exclude","{key}":{miss}}}]"#),
            true,
            None,
        );
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_the_first_rule_wins() {
    check(
        r#"[{"action":"include","executable":"cart","listen_port":80}]"#,
        false,
        None,
    );
    check(
        r#"[{"action":"include","executable":"cart","listen_port":8080}]"#,
        true,
        Some(0),
    );
    let two = r#"[{"action":"exclude","executable":"cart"},{"action":"include","pid":5}]"#;
    check(two, false, Some(0));
    let two = r#"[{"action":"exclude","executable":"nginx"},{"action":"include","pid":5}]"#;
    check(two, true, Some(1));
}

#[test]
fn the_default_depends_on_the_rules_unless_it_is_set() {
    check("null", true, None);
    check("[]", true, None);
    check("{}", true, None);
    check(r#"{"default":"exclude"}"#, false, None);
    check(
        r#"{"rules":[{"action":"include","pid":6}],"default":"include"}"#,
        true,
        None,
    );
    check(r#"[{"action":"exclude"}]"#, false, Some(0));
}

#[test]
fn the_collector_and_kernel_threads_are_never_traced() {
    let selector = selector(r#"[{"action":"include"}]"#);
    let decide = |process: &Process| selector.decide(process, &Ports::default()).include;
    assert!(decide(&process(5, "/bin/a", None)));
    assert!(!decide(&process(OWN.0, "/bin/a", None)));
    assert!(!decide(&Process {
        kernel_thread: true,
        ..process(5, "/bin/a", None)
    }));
}

#[test]
fn a_process_without_a_known_executable_or_container_misses() {
    let selector =
        selector(r#"[{"action":"include","executable":"*"},{"action":"include","container":"*"}]"#);
    let process = Process {
        executable: None,
        ..process(5, "", None)
    };
    assert!(!selector.decide(&process, &Ports::default()).include);
}

#[test]
fn a_program_matches_by_the_name_of_a_link_to_it() {
    let process = Process {
        short_name: "redis-server".into(),
        ..process(5, "/usr/bin/redis-check-rdb", None)
    };
    for pattern in [
        "redis-server",
        "*/redis-server",
        "/usr/bin/redis-server",
        "redis-check-*",
    ] {
        let selector = selector(&format!(
            r#"[{{"action":"include","executable":"{pattern}"}}]"#
        ));
        assert!(
            selector.decide(&process, &Ports::default()).include,
            "{pattern}"
        );
    }
}

#[test]
fn needs_name_the_facts_that_rules_look_at() {
    assert_eq!(
        selector(r#"[{"action":"include","executable":"x"}]"#).needs(),
        Needs::default()
    );
    let all = selector(
        r#"[{"action":"include","listen_port":80,"peer_port":"1-2"},{"action":"exclude","container":"a"}]"#,
    );
    assert_eq!(
        all.needs(),
        Needs {
            listen_ports: true,
            peer_ports: true,
            containers: true
        }
    );
    assert!(all.mentions_listen_port(80) && !all.mentions_listen_port(1));
    assert!(all.mentions_peer_port(2) && !all.mentions_peer_port(80));
}

#[test]
fn a_decision_says_why() {
    let why = |json: &str| {
        selector(json)
            .decide(&process(5, "/bin/a", None), &ports(&[80], &[]))
            .why
    };
    let rule = r#"[{"action":"include","executable":["a","b"],"listen_port":["80-90",443]}]"#;
    assert_eq!(
        why(rule),
        "rule 1: include executable a,b listen_port 80-90,443"
    );
    assert_eq!(
        why(r#"[{"action":"exclude"}]"#),
        "rule 1: exclude everything"
    );
    assert_eq!(why("[]"), "no rule matches: include");
}

#[test]
fn mistakes_in_the_configuration_are_refused() {
    for bad in [
        r#"[{"executable":"x"}]"#,
        r#"[{"action":"trace"}]"#,
        r#"[{"action":"include","exe":"x"}]"#,
        r#"[{"action":"include","listen_port":0}]"#,
        r#"[{"action":"include","listen_port":65536}]"#,
        r#"[{"action":"include","listen_port":-1}]"#,
        r#"[{"action":"include","listen_port":"90-80"}]"#,
        r#"[{"action":"include","listen_port":"http"}]"#,
        r#"[{"action":"include","listen_port":[]}]"#,
        r#"[{"action":"include","pid":"x"}]"#,
        r#"{"rule":[]}"#,
        r#"[{"action":"include","executable":"[a"}]"#,
        r#"[{"action":"include","executable":[]}]"#,
        r#"[{"action":"include","executable":["x",{}]}]"#,
        r#"[{"action":"include","pid":[]}]"#,
        r#"[{"action":"include","container":[]}]"#,
        "5",
    ] {
        assert!(serde_json::from_str::<Select>(bad).is_err(), "{bad}");
    }
}

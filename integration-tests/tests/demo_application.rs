//! The demo application alone, unobserved: it does what `truth::expected` says it does.

use std::path::Path;
use std::thread;

use integration_tests::demo::{Demo, Options};
use integration_tests::truth::expected;

fn check(options: &Options) {
    let demo = Demo::start(options).unwrap();
    let dir = demo.sandbox().dir().to_owned();
    let pids = demo.pids();
    assert_eq!(pids.len(), 5);
    for number in 1..=22 {
        let reply = demo.product(number).unwrap();
        let truth = reply.truth().unwrap().shape();
        assert_eq!(truth, expected(number));
        assert_eq!(reply.status, truth.status);
    }
    thread::scope(|scope| {
        for number in 100..108 {
            let demo = &demo;
            scope.spawn(move || {
                let truth = demo.product(number).unwrap().truth().unwrap().shape();
                assert_eq!(truth, expected(number));
            });
        }
    });
    demo.stop().unwrap();
    assert!(!dir.exists(), "{} is left", dir.display());
    for (name, pid) in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{name} is left"
        );
    }
}

#[test]
fn requests_cause_the_expected_calls() {
    check(&Options::default());
}

#[test]
fn requests_cause_the_expected_calls_with_keepalive_upstream() {
    check(&Options {
        upstream_keepalive: true,
        ..Options::default()
    });
}

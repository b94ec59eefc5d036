//! The demo application alone, unobserved: it does what `truth::expected` says it does.

use std::path::Path;
use std::thread;

use anyhow::{Result, bail};
use integration_tests::demo::{Demo, Options, PROGRAMS};
use integration_tests::programs;
use integration_tests::truth::expected;

fn check(options: &Options) -> Result<()> {
    if let Some(why) = programs::why_not(&PROGRAMS) {
        println!("skipped: the demo application: {why}");
        return Ok(());
    }
    let demo = Demo::start(options)?;
    let dir = demo.sandbox().dir().to_owned();
    let pids = demo.pids();
    assert_eq!(pids.len(), 5);
    for number in 1..=22 {
        let reply = demo.product(number)?;
        let truth = reply.truth()?.shape();
        assert_eq!(truth, expected(number));
        assert_eq!(reply.status, truth.status);
    }
    thread::scope(|scope| {
        let asked = (100..108).map(|number| {
            let demo = &demo;
            (number, scope.spawn(move || demo.product(number)?.truth()))
        });
        for (number, truth) in asked.collect::<Vec<_>>() {
            let Ok(truth) = truth.join() else {
                bail!("a request panicked")
            };
            assert_eq!(truth?.shape(), expected(number));
        }
        Ok(())
    })?;
    demo.stop()?;
    assert!(!dir.exists(), "{} is left", dir.display());
    for (name, pid) in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{name} is left"
        );
    }
    Ok(())
}

#[test]
fn requests_cause_the_expected_calls() -> Result<()> {
    check(&Options::default())
}

#[test]
fn requests_cause_the_expected_calls_with_keepalive_upstream() -> Result<()> {
    check(&Options {
        upstream_keepalive: true,
        ..Options::default()
    })
}

//! The workload `calls` alone, untraced: what it says it did fits together.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use integration_tests::programs;
use integration_tests::sandbox::Sandbox;
use integration_tests::workload::{Calls, Made, combinations, fnv1a};

const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;

/// The byte at an offset: calls.c makes them so.
fn byte_at(offset: u64, from_peer: bool) -> u8 {
    u8::try_from(offset % 251).unwrap_or(0) ^ if from_peer { 0x80 } else { 0 }
}

/// Follows the streams by what was said of them.
fn check(made: &[Made]) -> Result<()> {
    let mut positions = HashMap::from([("read", 0), ("write", 0)]);
    for one in made {
        let position = positions.get_mut(&*one.dir).context("it reads or writes")?;
        if let Some(offset) = one.offset {
            ensure!(offset == *position, "{one:?} should be at {position}");
        }
        // An urgent byte is what it is.
        if let Some(offset) = one.offset
            && one.flags & MSG_OOB == 0
        {
            let message =
                (offset..offset + one.payload_len).map(|at| byte_at(at, one.dir == "read"));
            ensure!(
                fnv1a(&message.collect::<Vec<_>>()) == one.hash,
                "{one:?} is made of other bytes"
            );
        }
        if let Ok(moved) = u64::try_from(one.ret)
            && one.flags & MSG_PEEK == 0
        {
            *position += moved;
        }
        ensure!(
            (one.errno != 0) == (one.ret < 0),
            "{one:?} failed and did not"
        );
    }
    Ok(())
}

#[test]
fn every_combination_says_what_it_did() -> Result<()> {
    if let Some(why) = programs::why_not(&["cc"]) {
        println!("skipped: the workload calls: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let (mut possible, mut messages) = (0, 0);
    for combination in combinations()? {
        let Some(mut calls) = Calls::start(&sandbox, &combination).context(combination.clone())?
        else {
            continue;
        };
        let made = calls.make().with_context(|| combination.clone())?;
        check(&made).with_context(|| combination.clone())?;
        calls.finish().with_context(|| combination.clone())?;
        possible += 1;
        messages += made.len();
    }
    println!("{possible} combinations, {messages} messages");
    ensure!(
        possible > 500 && messages > 2 * possible,
        "{possible} combinations, {messages} messages"
    );
    Ok(())
}

//! A queue on the disk under `kill -9` and a full disk, during steady load: what a client was told
//! is taken arrives, and the counters say exactly what was refused.
//!
//! `DEEPTRACE_DURABILITY_SECONDS` is the length of each load; 8 if it is not set.

#![cfg(test)]

mod scene;

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use scene::{Disk, Scene, load_time};

/// How often something is killed during a load.
const KILLS: u32 = 4;

/// Kills something again and again while a load runs.
fn during_load(scene: &mut Scene, kill: impl Fn(&mut Scene) -> Result<()>) -> Result<()> {
    let load = scene.start_load(0, load_time())?;
    for _ in 0..KILLS {
        sleep(load_time() / (KILLS + 1));
        kill(scene)?;
    }
    load.wait()
}

#[test]
fn a_collector_that_is_killed_loses_nothing_that_it_took() -> Result<()> {
    let Some(mut scene) = Scene::set("a killed collector", Disk::Large)? else {
        return Ok(());
    };
    scene.start_backend()?;
    scene.start_collector()?;
    during_load(&mut scene, |scene| {
        scene.kill_collector()?;
        scene.start_collector()
    })?;
    let report = scene.wait_for_everything()?;
    ensure!(report.acked > 0, "{report:?}");
    let lost = scene.metric("deeptrace_lost_spans")?;
    ensure!(lost == 0, "{lost} spans are lost by its own count");
    println!("{report:?}");
    Ok(())
}

#[test]
fn a_backend_that_is_killed_gets_everything_when_it_is_back() -> Result<()> {
    let Some(mut scene) = Scene::set("a killed backend", Disk::Large)? else {
        return Ok(());
    };
    scene.start_backend()?;
    scene.start_collector()?;
    during_load(&mut scene, |scene| {
        scene.kill_backend()?;
        sleep(load_time() / 20);
        scene.start_backend()
    })?;
    let report = scene.wait_for_everything()?;
    ensure!(report.acked > 0 && report.refused == 0, "{report:?}");
    for name in [
        "deeptrace_lost_spans",
        "otelcol_exporter_send_failed_spans",
        "otelcol_exporter_enqueue_failed_spans",
        "otelcol_exporter_queue_size",
    ] {
        let value = scene.metric(name)?;
        ensure!(value == 0, "{name} is {value}");
    }
    println!("{report:?}");
    Ok(())
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_has() -> Result<()> {
    let Some(mut scene) = Scene::set("a full disk", Disk::Mib8)? else {
        return Ok(());
    };
    scene.start_collector()?;
    scene.start_load(0, load_time())?.wait()?;
    let (acked, refused) = scene.counts()?;
    ensure!(acked > 50, "only {acked} batches fit the disk");
    ensure!(refused > 0, "the disk did not become full");
    let spans = refused * Scene::SPANS;
    for (name, expected) in [
        ("otelcol_exporter_enqueue_failed_spans", spans),
        ("otelcol_receiver_refused_spans", spans),
        ("deeptrace_storage_refused_records", refused),
        ("deeptrace_lost_spans", 0),
    ] {
        let value = scene.metric(name)?;
        ensure!(value == expected, "{name} is {value}, not {expected}");
    }

    // Killed with the disk still full, and then a backend: all is sent, and there is room again.
    scene.kill_collector()?;
    scene.start_collector()?;
    let load = scene.start_load(10, load_time())?;
    sleep(load_time() / 4);
    scene.start_backend()?;
    load.wait()?;
    let report = scene.wait_for_everything()?;
    let (acked_in_all, _) = scene.counts()?;
    ensure!(acked_in_all > acked, "there was no room again: {report:?}");
    let lost = scene.metric("deeptrace_lost_spans")?;
    ensure!(lost == 0, "{lost} spans are lost by its own count");
    println!("{acked} batches taken before the disk was full, then {report:?}");
    Ok(())
}

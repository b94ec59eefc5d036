//! Files that were not closed, or were damaged: what is in them afterwards.

use super::file_name;
use super::salvage::beside;
use super::store::{Record, StoreError};
use super::worker::{Contents, Location, Log, Meters, start};
use crate::config::ComponentId;
use crate::telemetry::Metrics;
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn file_names_are_safe_and_differ() {
    for (id, expected) in [
        ("otlp_grpc", "exporter_otlp_grpc_"),
        ("otlp_grpc/eu-1.a_b", "exporter_otlp_grpc_eu-1.a_b"),
        ("otlp_grpc/../x", "exporter_otlp_grpc_..~002Fx"),
        ("otlp_grpc/ü~", "exporter_otlp_grpc_~00FC~007E"),
    ] {
        let id = ComponentId::parse(id).unwrap();
        assert_eq!(file_name(&id), expected);
    }
}

fn open(path: &Path, metrics: &Metrics) -> Result<(Log, Contents), StoreError> {
    let location = Location {
        path: path.to_owned(),
        fsync: false,
        compact: false,
    };
    start(location, Meters::new(metrics, "file_storage", "otlp_grpc"))
}

fn metric(metrics: &Metrics, name: &str) -> u64 {
    let samples = metrics.samples();
    let named = samples.iter().filter(|sample| sample.name == name);
    named
        .map(|sample| sample.value.to_string().parse::<u64>().unwrap())
        .sum()
}

/// A record that tells its number, of a size that follows from it.
fn record(number: u64, rng: &mut fastrand::Rng) -> Record {
    let length = if rng.u8(..) < 32 {
        rng.usize(10_000..100_000)
    } else {
        rng.usize(8..3_000)
    };
    let mut body = number.to_le_bytes().to_vec();
    body.resize_with(length.max(8), || rng.u8(..));
    Record {
        body: Bytes::from(body),
        spans: 10,
    }
}

fn number_in(body: &Bytes) -> u64 {
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

/// What a killed process would leave: the file as it is now, without an orderly close.
fn crash_image(path: &Path, to: &Path) -> PathBuf {
    let image = to.join(path.file_name().unwrap());
    fs::copy(path, &image).unwrap();
    image
}

/// The numbers that the bodies tell, and how many bodies are missing.
async fn read_all(log: &Log, contents: &Contents) -> (Vec<u64>, u64) {
    let numbers: Vec<u64> = contents
        .records
        .iter()
        .map(|stored| stored.number)
        .collect();
    let bodies = log.read(numbers).await.unwrap();
    let missing = bodies.iter().filter(|body| body.is_none()).count() as u64;
    let told = bodies.iter().flatten().map(number_in);
    (told.collect(), missing)
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_crash_in_the_order_of_arrival() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let metrics = Metrics::default();
    let path = dir.path().join("records");
    let mut rng = fastrand::Rng::with_seed(1);
    let (log, _) = open(&path, &metrics).unwrap();
    for number in 0..50 {
        let first = log.append(vec![record(number, &mut rng)]).await.unwrap();
        assert_eq!(first, number);
    }
    let several = (50..60).map(|number| record(number, &mut rng)).collect();
    assert_eq!(log.append(several).await, Ok(50));
    log.remove((0..20).collect()).await;
    log.remove(vec![30]).await;
    assert_eq!(log.append(Vec::new()).await, Ok(60), "behind the removals");
    let image = crash_image(&path, other.path());

    let (log, contents) = open(&image, &metrics).unwrap();
    assert_eq!(contents.salvaged, None);
    let expected: Vec<u64> = (20..60).filter(|number| *number != 30).collect();
    assert_eq!(read_all(&log, &contents).await, (expected, 0));
    let first = log.append(vec![record(60, &mut rng)]).await;
    assert_eq!(first, Ok(60), "numbers are not given out twice");
}

#[tokio::test]
async fn a_file_is_open_only_once_and_closes_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let path = dir.path().join("records");
    let mut rng = fastrand::Rng::with_seed(2);
    let (log, _) = open(&path, &metrics).unwrap();
    log.append(vec![record(0, &mut rng)]).await.unwrap();
    assert!(matches!(open(&path, &metrics), Err(StoreError::InUse)));
    log.close().await;
    let (log, contents) = open(&path, &metrics).unwrap();
    assert_eq!(read_all(&log, &contents).await, (vec![0], 0));
}

/// Fills a file with `count` records, removes some of the first, and leaves it as a crash would.
async fn filled(dir: &Path, count: u64, removed: u64, rng: &mut fastrand::Rng) -> PathBuf {
    let path = dir.join("filled");
    let (log, _) = open(&path, &Metrics::default()).unwrap();
    for number in 0..count {
        log.append(vec![record(number, rng)]).await.unwrap();
    }
    log.remove((0..removed).collect()).await;
    log.append(Vec::new()).await.unwrap();
    let image = dir.join("image");
    fs::copy(&path, &image).unwrap();
    image
}

#[tokio::test]
async fn damage_costs_only_the_damaged_records_and_says_how_many() {
    let mut salvaged_files = 0;
    for seed in 0..15 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let (count, removed) = (rng.u64(1..60), rng.u64(0..10));
        let image = filled(dir.path(), count, removed.min(count), &mut rng).await;
        let mut bytes = fs::read(&image).unwrap();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len());
            let end = (at + rng.usize(1..200)).min(bytes.len());
            rng.fill(&mut bytes[at..end]);
        }
        fs::write(&image, &bytes).unwrap();

        let metrics = Metrics::default();
        let (log, contents) = open(&image, &metrics).unwrap();
        let (told, missing) = read_all(&log, &contents).await;
        let lost = contents
            .salvaged
            .as_ref()
            .map_or(0, |salvaged| salvaged.damaged);
        salvaged_files += u64::from(contents.salvaged.is_some());
        assert_eq!(missing, 0, "seed {seed}");
        assert!(told.is_sorted(), "seed {seed}: {told:?}");
        // Told apart by what is in them: nothing comes back changed.
        let waiting: Vec<u64> = (removed.min(count)..count).collect();
        let kept = told
            .iter()
            .filter(|number| waiting.contains(number))
            .count() as u64;
        assert_eq!(
            kept + lost,
            waiting.len() as u64,
            "seed {seed}: {told:?} {:?}",
            contents.salvaged
        );
        assert_eq!(metric(&metrics, "deeptrace_storage_damaged_records"), lost);
        assert_eq!(
            metric(&metrics, "deeptrace_storage_damaged_files"),
            u64::from(contents.salvaged.is_some())
        );
        assert_eq!(
            beside(&image, "damaged").exists(),
            contents.salvaged.is_some()
        );
    }
    assert!(
        salvaged_files > 3,
        "{salvaged_files}: the damage did not reach anything"
    );
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_set_aside() {
    for content in [b"no store at all".to_vec(), vec![0; 100_000]] {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let path = dir.path().join("records");
        fs::write(&path, &content).unwrap();
        let (log, contents) = open(&path, &metrics).unwrap();
        assert_eq!(contents.records, []);
        assert_eq!(fs::read(beside(&path, "damaged")).unwrap(), content);
        let mut rng = fastrand::Rng::with_seed(3);
        assert_eq!(log.append(vec![record(0, &mut rng)]).await, Ok(0));
    }
}

#[tokio::test]
async fn damage_under_an_open_file_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let path = dir.path().join("records");
    let (log, _) = open(&path, &metrics).unwrap();
    // More than fits the store's own cache.
    let body = |number: u8| Bytes::from(vec![number; 1 << 20]);
    for number in 0..40 {
        let record = Record {
            body: body(number),
            spans: 1,
        };
        log.append(vec![record]).await.unwrap();
    }
    let bytes = fs::read(&path).unwrap();
    let needle = [7; 1000];
    let at = memchr::memmem::find(&bytes, &needle).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at as u64 + 500)).unwrap();
    std::io::Write::write_all(&mut file, b"damage").unwrap();
    let bodies = log.read((0..40).collect()).await.unwrap();
    for (number, read) in bodies.iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let expected = (number != 7).then(|| body(number));
        assert!(*read == expected, "record {number}");
    }
    assert_eq!(metric(&metrics, "deeptrace_storage_damaged_records"), 1);
}

//! Measures how many events a second the collector takes, by the size of the batches:
//! `cargo test -p agent-meter-collector --test collector -- --ignored rate --nocapture`.

use std::time::Instant;

use super::*;

/// Events of one measurement, of a quarter as many sessions: so many that the ledger is larger than
/// SQLite's own cache.
const EVENTS: u64 = 160_000;
/// Senders at once, each with a source of its own.
const SENDERS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn the_rate_of_ingest_by_the_size_of_batches() {
    for round in 0..2 {
        for size in [100, 1000] {
            let (rate, cpu_us, written) = measure(size).await;
            println!(
                "round {round}, batches of {size}: {rate:.0} events/s, {cpu_us:.0} us of CPU and \
                 {written:.0} bytes written for each"
            );
        }
    }
}

/// CPU time of this process so far, in hundredths of a second, and bytes that it wrote to disk.
fn used() -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(file).expect(file);
    let number = |text: &str| text.parse::<u32>().map_or(0.0, f64::from);
    let stat = read("/proc/self/stat");
    let cpu = stat.split(' ').skip(13).take(2).map(number).sum();
    let io = read("/proc/self/io");
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    (cpu, written.map_or(0.0, |text| text.parse().unwrap_or(0.0)))
}

/// Events a second, on a ledger in a file; microseconds of CPU, sender and collector together, and
/// bytes written, for each.
async fn measure(size: u64) -> (f64, f64, f64) {
    let directory = tempfile::tempdir().expect("directory");
    let url = format!("sqlite:{}", directory.path().join("ledger.db").display());
    let extras = Extras { clock: clock(), ..Extras::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::start_with(listen, &url, extras).await;
    let collector = collector.expect("collector");
    let bodies = |sender: u64| -> Vec<Vec<u8>> {
        let numbers: Vec<u64> = (1..=EVENTS / SENDERS).collect();
        let event = |sequence: &u64| {
            let mut event = call(
                *sequence,
                json!({"session_id": format!("{:032x}", sequence.wrapping_mul(2654435761) % 40_000)}),
            );
            event["source"] = format!("urn:agent-meter:envoy-{sender}:0001").into();
            event
        };
        let body = |numbers: &[u64]| {
            serde_json::to_vec(&numbers.iter().map(event).collect::<Vec<_>>()).expect("json")
        };
        numbers.chunks(usize::try_from(size).expect("small")).map(body).collect()
    };
    let all: Vec<_> = (0..SENDERS).map(bodies).collect();
    let (started, before) = (Instant::now(), used());
    let senders = all.into_iter().map(|bodies| {
        let http = Http::new(&collector);
        tokio::spawn(async move {
            for body in bodies {
                let (status, receipt) = http.post(BATCH, body).await;
                assert_eq!((status, &receipt["rejected"]), (200, &json!([])));
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a sender");
    }
    let took = started.elapsed();
    assert_eq!(collector.ledger().count_events().expect("count"), EVENTS);
    collector.stop().await;
    let (events, after) = (f64::from(u32::try_from(EVENTS).expect("small")), used());
    let cpu_us = (after.0 - before.0) * 10_000.0 / events;
    (events / took.as_secs_f64(), cpu_us, (after.1 - before.1) / events)
}

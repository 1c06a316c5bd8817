//! Measures how many events a second the collector takes, by the size of the batches:
//! `cargo test -p agent-meter-collector --test collector -- --ignored rate --nocapture`.

use std::time::Instant;

use super::*;

/// Events of one measurement, of a quarter as many sessions: so many that the ledger is larger than
/// SQLite's own cache.
const EVENTS: u64 = 240_000;
/// Senders at once, each with a source of its own.
const SENDERS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn the_rate_of_ingest_by_the_size_of_batches() {
    for round in 0..2 {
        for size in [100, 1000] {
            println!("round {round}: {:.0} events/s in batches of {size}", rate(size).await);
        }
    }
}

/// Events a second, on a ledger in a file.
async fn rate(size: u64) -> f64 {
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
                json!({"session_id": format!("{:032x}", sequence.wrapping_mul(2654435761) % 60_000)}),
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
    let started = Instant::now();
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
    f64::from(u32::try_from(EVENTS).expect("small")) / took.as_secs_f64()
}

//! What sessions cost: 100,000 at once, and many more one after the other (a million in the benchmark). Times are printed, not asserted
//! (`--nocapture`).

#![cfg(not(target_arch = "wasm32"))]
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "it takes the time of what the core does, and prints it"
)]

mod heap;
#[path = "core/host.rs"]
#[expect(dead_code, reason = "the host of the core's tests; not all of it is needed here")]
mod host;

use std::time::Instant;

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::meter::LAYOUT;

use self::heap::live;
use self::host::{Envoy, meter, taken};

const LIVE: u32 = 100_000;
const LIVE_F: isize = 100_000;
/// Sessions that are opened between two ticks.
const OPENED_PER_TICK: u32 = 1000;
/// Heap of the accountant for each live session of one tool.
const HEAP_EACH_MAX: isize = 3 * 1024;
/// Keys and values in shared data for each live session of one tool.
const SHARED_EACH_MAX: usize = 256;
/// Writes of one tick that are not a session's: the redo record, the head, totals, cursors, batches.
const OTHER_CALLS_MAX: u64 = 300;
/// Calls of the host that each piece of a tick makes beside those.
const PIECE_CALLS_MAX: u64 = 20;

fn config(sessions_max: u32) -> String {
    format!(
        r#"{{"sessions_max": {sessions_max}, "products": [{{
            "id": "mcp", "type": "MCP_SERVER", "match": {{"path": "/mcp"}},
            "identity": {{"customer": {{"trusted_header": "x-customer-id"}}}},
            "session": {{"idle_timeout": "1h", "session_timeout": "2h"}},
            "pricing": {{"tools": [{{"tool": "*", "price": "0.001", "cost_tier": "lookup"}}]}}
        }}]}}"#
    )
}

/// What the collector was told of sessions, in constant memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    created: u64,
    closed: u64,
    /// The sum of the ids of sessions that were created, less that of those that were closed.
    open_ids: u64,
}

impl Told {
    fn take(&mut self, body: &[u8]) {
        let body = core::str::from_utf8(body).unwrap();
        for event in body.split(r#""specversion""#).skip(1) {
            let text = |name: &str| {
                let (_, value) = event.split_once(&format!(r#""{name}":""#)).unwrap();
                value.split_once('"').unwrap().0
            };
            match text("event_type") {
                "session_created" => {
                    self.created += 1;
                    self.open_ids = self.open_ids.wrapping_add(id(text("session_id")));
                }
                "session_closed" => {
                    self.closed += 1;
                    self.open_ids = self.open_ids.wrapping_sub(id(text("session_id")));
                }
                _ => {}
            }
        }
    }

    fn tick(&mut self, envoy: &mut Envoy, after_ms: u64) {
        let mut waiting: Vec<Dispatch> = envoy.tick(after_ms);
        while let Some(dispatch) = waiting.pop() {
            self.take(&dispatch.body);
            waiting.extend(envoy.reply(&dispatch, taken()));
        }
    }
}

/// The first 64 bits of a session's id.
fn id(text: &str) -> u64 {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap()
}

/// Opens sessions with one call each.
fn open(envoy: &mut Envoy, told: &mut Told, sessions: core::ops::Range<u32>) {
    for session in sessions {
        envoy.call(&format!("5f0c2d1e-session-{session:010}"), "lookup", "{}");
        if session % OPENED_PER_TICK == OPENED_PER_TICK - 1 {
            told.tick(envoy, 250);
        }
    }
}

fn settle(envoy: &mut Envoy, told: &mut Told) {
    for _ in 0..10 {
        told.tick(envoy, 250);
    }
    assert_eq!(envoy.host.gauges[&Gauge::OutboxEvents], 0);
    assert!(envoy.host.spilled.is_empty(), "{} spilled", envoy.host.spilled.len());
}

/// Keys of shared data, and bytes of keys and values; without batches, whose keys are used in turn.
fn shared(envoy: &Envoy) -> (usize, usize) {
    let batch = format!("{LAYOUT}.test.o");
    let (batches, others): (Vec<_>, Vec<_>) =
        envoy.host.data.iter().partition(|(key, _)| key.starts_with(&batch));
    assert!(!batches.is_empty(), "no key begins with {batch}");
    assert!(batches.len() <= 1024, "{} batches", batches.len());
    let bytes = others.iter().map(|(key, (value, _))| key.len() + value.len());
    (others.len(), bytes.sum())
}

fn calls_of(envoy: &mut Envoy, work: impl FnOnce(&mut Envoy)) -> u64 {
    let before = envoy.host.calls;
    let start = Instant::now();
    work(envoy);
    let calls = envoy.host.calls - before;
    println!("    {calls} host calls, {:?}", start.elapsed());
    calls
}

/// How much heap a VM's state holds.
fn heap_of(state: agent_meter_core::meter::Meter) -> isize {
    let before = live();
    drop(state);
    before - live()
}

#[test]
fn a_hundred_thousand_live_sessions_cost_what_is_due() {
    let config = config(LIVE);
    let mut told = Told::default();
    let mut envoy = Envoy::new(&config);
    open(&mut envoy, &mut told, 0..1);
    settle(&mut envoy, &mut told);
    let (_, shared_before) = shared(&envoy);
    let idle_with_one = calls_of(&mut envoy, |envoy| told.tick(envoy, 250));
    open(&mut envoy, &mut told, 1..LIVE);
    settle(&mut envoy, &mut told);
    assert_eq!(envoy.host.gauges[&Gauge::SessionsLive], u64::from(LIVE));
    let (_, shared_after) = shared(&envoy);
    let shared_each = (shared_after - shared_before) / usize::try_from(LIVE).unwrap();
    println!("{shared_each} bytes of shared data for each session");
    assert!(shared_each < SHARED_EACH_MAX, "{shared_each} bytes of shared data for each");

    println!("an idle tick:");
    let idle = calls_of(&mut envoy, |envoy| told.tick(envoy, 250));
    assert_eq!(idle, idle_with_one);

    println!("a tick with 1000 active sessions:");
    for session in 0..1000 {
        envoy.call(&format!("5f0c2d1e-session-{:010}", session * 97), "lookup", "{}");
    }
    let mut pieces = Vec::new();
    let active = calls_of(&mut envoy, |envoy| {
        let mut begun = Instant::now();
        envoy.tick_in_pieces(250, |_| {
            pieces.push(begun.elapsed());
            begun = Instant::now();
        });
    });
    println!("    in {} pieces, the longest {:?}", pieces.len(), pieces.iter().max());
    assert!(pieces.len() > 10, "{} pieces", pieces.len());
    assert!(pieces.len() <= 20, "{} pieces", pieces.len());
    assert!(active <= 2 * 1000 + 20 * PIECE_CALLS_MAX + OTHER_CALLS_MAX, "{active} host calls");
    for _ in 0..30 {
        told.tick(&mut envoy, 6000);
    }
    settle(&mut envoy, &mut told);

    println!("another VM takes over:");
    let now = envoy.now;
    let mut successor = meter(&mut envoy.host, &config);
    let took = calls_of(&mut envoy, |envoy| {
        for _ in 0..5 {
            successor.tick(&mut envoy.host, now);
        }
    });
    assert!(successor.is_accountant());
    assert!(took <= u64::from(LIVE) + 3 * 1000 + OTHER_CALLS_MAX, "{took} host calls");
    let heap_each = heap_of(core::mem::replace(&mut envoy.main, successor)) / LIVE_F;
    println!("{heap_each} bytes of heap for each session");
    assert!(heap_each < HEAP_EACH_MAX, "{heap_each} bytes of heap for each");

    // The clock jumps: every session is due at once, and then once more.
    println!("ticks while all sessions are due:");
    for state in ["IDLE", "CLOSED"] {
        let mut most = 0;
        for tick in 0..40 {
            let before = envoy.host.calls;
            let start = Instant::now();
            told.tick(&mut envoy, if tick == 0 { 3_600_000 } else { 250 });
            let calls = envoy.host.calls - before;
            if calls > most {
                most = calls;
                println!("    {state}: {calls} host calls, {:?}", start.elapsed());
            }
        }
        let pieces_max = 4096 / 64 + 1;
        let most_max = 2 * 4096 + pieces_max * PIECE_CALLS_MAX + OTHER_CALLS_MAX;
        assert!(most <= most_max, "{most} host calls in one tick");
    }
    settle(&mut envoy, &mut told);
    assert_eq!(told, Told { created: u64::from(LIVE), closed: u64::from(LIVE), open_ids: 0 });
    // What is left is the hash table's capacity and the set of free slots.
    let left = heap_of(envoy.main);
    println!("{left} bytes of heap when all are closed");
    assert!(left < 16 * 1024 * 1024, "{left} bytes of heap when all are closed");
}

#[test]
fn many_sessions_over_time_leave_memory_flat() {
    const TABLE: u32 = 2000;
    let mut told = Told::default();
    let mut envoy = Envoy::new(&config(TABLE));
    let mut after = Vec::new();
    for lap in 0..10 {
        for part in 0..2 {
            let first = lap * 20_000 + part * 10_000;
            open(&mut envoy, &mut told, first..first + 9000);
            // Half of the last thousand are ended by the client, as they come.
            for session in first + 9000..first + 10_000 {
                envoy.call(&format!("5f0c2d1e-session-{session:010}"), "lookup", "{}");
                if session % 2 == 0 {
                    envoy.delete(&format!("5f0c2d1e-session-{session:010}"));
                }
            }
            told.tick(&mut envoy, 250);
        }
        // Once in a lap nobody comes for hours: all time out.
        for _ in 0..40 {
            told.tick(&mut envoy, 300_000);
        }
        settle(&mut envoy, &mut told);
        assert_eq!(envoy.host.gauges[&Gauge::SessionsLive], 0, "lap {lap}");
        after.push((live(), shared(&envoy)));
    }
    println!("heap, (keys, bytes) of shared data after each 20,000: {after:?}");
    let all = 200_000;
    assert_eq!(told, Told { created: all, closed: all, open_ids: 0 });
    let unused = envoy.host.counters.get(&Counter::SessionEndUnused).copied().unwrap_or(0);
    assert_eq!(unused, 0, "ends of sessions that were not used");
    // In the first lap tables grow to their size.
    let (_, (keys_first, shared_first)) = after[1];
    let (_, (keys_last, shared_last)) = after[9];
    assert_eq!(keys_last, keys_first);
    assert!(
        shared_last <= shared_first + shared_first / 50,
        "{shared_first} to {shared_last} bytes"
    );
    // A hash table may double once, in whichever lap: its seed is another each time. What grew with the sessions would
    // grow by more than 3 bytes for each.
    let heaps: Vec<_> = after.iter().map(|(heap, _)| *heap).collect();
    let (early, late) = heaps.split_at(5);
    let (most, least) = (early.iter().max().unwrap(), late.iter().min().unwrap());
    assert!(*least <= most + 64 * 1024, "{most} to {least} bytes of heap");
}

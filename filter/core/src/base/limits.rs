//! Every bound of the filter, with its unit and its reason.
//! What happens beyond a bound is counted: see [`crate::host::counter::Counter`].

/// Bytes kept of a JSON member name. The names that are looked for are shorter, so a longer one cannot match.
pub const KEY_BYTES_MAX: usize = 64;

/// Bytes kept of a captured value: a tool name, a JSON-RPC id, an error code. Tool names are at most 128 by the MCP specification.
pub const VALUE_BYTES_MAX: usize = 128;

/// Bytes kept of an identity (customer, team, agent). UUIDs, e-mail addresses and SPIFFE ids fit.
pub const IDENTITY_BYTES_MAX: usize = 256;

/// Containers that the JSON scanner follows by name; deeper ones are skipped by counting brackets.
pub const TRACKED_DEPTH_MAX: usize = 8;

/// Elements with a name and a count, such as tokens by modality, kept of one document.
pub const DOCUMENT_ITEMS_MAX: usize = 32;

/// Bytes that a coded body may decode to for each of its own; JSON reaches about 20. Beyond, decoding stops.
pub const DECODED_RATIO_MAX: u64 = 200;

/// Bytes that any coded body may decode to.
pub const DECODED_BYTES_FREE: u64 = 1024 * 1024;

/// Calls followed in one exchange. JSON-RPC batches are small in practice; servers reject large ones.
pub const CALLS_PER_EXCHANGE_MAX: usize = 1024;

/// Bytes kept of an `endpoint` event, and of a request's path.
pub const ENDPOINT_BYTES_MAX: usize = 1024;

/// Calls whose answer may come on another stream; beyond it the one that expires first is over.
pub const JOINS_MAX: usize = 10_000;

/// Running tool calls that generations may be attributed to, at about 300 bytes each.
pub const RUNNING_CALLS_MAX: usize = 10_000;

/// Generations that run, of which the cause is known or looked for, at about 300 bytes each.
pub const RUNNING_GENERATIONS_MAX: usize = 10_000;

/// Bytes of an event that are held back to see whether it is the chunk that only `ask_for_usage` brings; that has about
/// 500.
pub const HELD_EVENT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of text that one token is taken for where usage has to be estimated: about right for English.
pub const BYTES_PER_TOKEN: u64 = 4;

/// How long a generation may run before it is taken for lost, in milliseconds.
pub const GENERATION_TIME_MAX_MS: u64 = 24 * 3_600_000;

/// Readings of all journals for which an ended call can still be found to be the cause of a generation: one in which
/// the generation's start is read, and one more in which everything that was written before it is.
pub const CAUSE_READINGS: u64 = 2;

/// Generations that may be told again and are remembered, in pages; about 4,000 of them.
pub const TOLD_PAGES: u32 = 32;

/// Generations in one page.
pub const TOLD_PAGE_LINKS: usize = 128;

/// The age at which a generation that is told again is taken for one that was counted before, in seconds: the memory
/// of them does not reach further back on a busy day.
pub const TOLD_AGE_MAX_S: u64 = 24 * 3600;

/// Models kept apart in one session; more are added up under [`OTHER`].
pub const MODELS_PER_SESSION_MAX: usize = 32;

/// Session ends that wait for the next reading of all journals; beyond it a session ends by its timeout.
pub const SESSION_ENDS_MAX: usize = 4096;

/// Pieces of evidence kept for calls that have not been told of yet.
pub const EVIDENCE_MAX: usize = 4096;

/// How much longer than a call may stay open evidence of it is kept, in milliseconds: workers look at open calls every
/// [`RUNNING_INTERVAL_MS_MAX`] at the latest, and what they tell is read on a later tick.
pub const EVIDENCE_SLACK_MS: u64 = 60_000;

/// Exchanges that one worker follows at once, at about 1 KiB each.
pub const EXCHANGES_MAX: usize = 65_536;

/// The longest time between two signs of life of a running call, in milliseconds.
pub const RUNNING_INTERVAL_MS_MAX: u64 = 15_000;

/// Bytes of one page of a journal: the host copies it in 0.2 us, as fast as a smaller one.
pub const JOURNAL_PAGE_BYTES_MAX: usize = 4096;

/// Pages of one journal: about 7,000 facts between two ticks of the accountant.
pub const JOURNAL_PAGES: u64 = 256;

/// Journals of one plugin: one for each worker, and room for workers that crash in a loop.
pub const JOURNALS_MAX: u32 = 256;

/// Facts that a worker holds in memory while its journal is full.
pub const OVERFLOW_FACTS_MAX: usize = 1024;

/// Facts folded in one tick, so that a tick on the main thread stays short (about 20 us a fact).
pub const FACTS_PER_TICK_MAX: usize = 4096;

/// Sessions that become idle or time out in one tick: after a pause of the process all may be due at once, which would
/// hold the main thread for long and make more events than the outbox takes.
pub const DUE_PER_TICK_MAX: usize = 4096;

/// Scopes that guards add up, at about 600 bytes each; beyond it the least recently active that is at ease goes.
pub const GUARD_SCOPES_MAX: usize = 10_000;

/// How many scopes that are not at ease are passed over when room is looked for.
pub const GUARD_SCOPES_SPARED: usize = 64;

/// Keys that scopes hash to: verdicts, desks and last costs. About ten scopes share one when the table is full.
pub const GUARD_BUCKETS: u32 = 1024;

/// Scopes in one desk's bucket.
pub const RESERVATION_COUNTERS_MAX: usize = 64;

/// How often a desk is tried when other workers write it: each failure is another worker's success.
pub const COUNTER_TRIES_MAX: usize = 256;

/// Tools whose last cost is remembered in one bucket.
pub const LAST_COSTS_MAX: usize = 16;

/// Calls that have taken room, at about 300 bytes each; beyond it the room is given back at once.
pub const RESERVATIONS_MAX: usize = 10_000;

/// Readings of all journals after a call's end, in which the generations that it caused become known.
pub const RESERVATION_READINGS: u64 = 3;

/// Readings of all journals after which room that was taken, and of which nobody tells, is given back.
pub const LEAK_READINGS: u32 = 4;

/// Different calls (tool and arguments) of one session that are looked at for repetition, at 100 to 400 bytes each: an
/// agent that goes round in a circle of more is not recognised.
pub const REPEATS_PER_SCOPE_MAX: usize = 8;

/// Milliseconds between two times that a running stream asks guards whether it is to end.
pub const STOP_LOOK_INTERVAL_MS: u64 = 100;

/// Milliseconds that a client has to leave a stream that was ended, before it is closed.
pub const STOP_GRACE_MS: u64 = 500;

/// The accountant's ticks between two times that it tells a scope's totals: 1 s.
pub const TOTALS_TICKS: u64 = 4;

/// Scopes whose totals are told at one time.
pub const TOTALS_PER_TICK_MAX: usize = 512;

/// The accountant's ticks without an answer of the collector after which it counts as lost: 30 s.
pub const COLLECTOR_LOST_TICKS: u64 = 120;

/// The accountant's ticks without a sign of life after which a drained journal is given to others.
pub const JOURNAL_ORPHAN_TICKS: u32 = 240;

/// Tools kept apart in one session; more are added up under [`OTHER`].
pub const TOOLS_PER_SESSION_MAX: usize = 64;

/// The most entries of one rate card. The largest public list has 4,500 models; an entry takes about 300 bytes in
/// each worker.
pub const RATES_MAX: usize = 50_000;

/// The name under which what overflows a bounded table is metered.
pub const OTHER: &str = "__other__";

/// Spans kept apart when a session's active time is added up.
pub const ACTIVE_SPANS_MAX: usize = 32;

/// Batches in the outbox, each of up to `batch_events_max` events.
pub const OUTBOX_BATCHES_MAX: u64 = 256;

/// Bytes of one batch. Collectors commonly refuse bodies above 1 MiB.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Ticks that a VM which never served a stream (Envoy's main thread) waits for a silent accountant.
pub const LEASE_TICKS_MAIN: u32 = 4;

/// Ticks that a worker waits for a silent accountant, so that the main thread comes first.
pub const LEASE_TICKS_WORKER: u32 = 12;

/// Ticks of silence after which a VM that is being stopped takes the accountant for dead.
pub const LEASE_TICKS_LAST: u32 = 2;

const _: () = assert!(EVIDENCE_SLACK_MS > 2 * RUNNING_INTERVAL_MS_MAX);

const _: () = assert!(LEASE_TICKS_LAST < LEASE_TICKS_MAIN);

const _: () = assert!(LEASE_TICKS_MAIN < LEASE_TICKS_WORKER);

const _: () = assert!(VALUE_BYTES_MAX * 8 < JOURNAL_PAGE_BYTES_MAX);

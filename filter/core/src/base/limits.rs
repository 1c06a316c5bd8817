//! Every limit of the filter, with its unit and its reason. A counter counts what exceeds a limit:
//! see [`crate::host::counter::Counter`].

/// Bytes that the JSON scanner keeps of a member name. The names that it looks for are shorter, so
/// a longer name cannot match.
pub(crate) const KEY_BYTES_MAX: usize = 64;

/// Bytes that the filter keeps of a captured value: a tool name, a JSON-RPC id or an error code.
/// The MCP specification allows at most 128 characters for a tool name. A hash stands for the rest
/// of a longer id.
pub(crate) const VALUE_BYTES_MAX: usize = 256;

/// Bytes of a header with a payment, in base64. Proxies accept few longer headers.
pub(crate) const PAYMENT_HEADER_BYTES_MAX: usize = 16_384;

/// Bytes of an `x-request-id`, and of a list of ids in an access log. Envoy's own have 36.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

/// Calls of a stream that an access log tells of; a stream has more only in a batch.
pub(crate) const LOGGED_CALLS_MAX: u64 = 16;

/// Templates of paths, at about 100 bytes each, of which one worker tells that a generation may be
/// made there unseen. Requests to further ones are only counted.
pub(crate) const UNSEEN_TEMPLATES_MAX: usize = 64;

/// Responses that run side by side on one WebSocket, and requests for them that wait. Beyond this
/// number, a response is reported with what was told when it began.
pub(crate) const SOCKET_LANES_MAX: usize = 16;

/// Bytes of a form's boundary. RFC 2046 allows 70.
pub(crate) const FORM_BOUNDARY_BYTES_MAX: usize = 256;

/// Bytes that the filter keeps of a header line within a form: a field's fits.
pub(crate) const FORM_LINE_BYTES_MAX: usize = 1024;

/// Bytes that the filter keeps of an identity (customer, team, agent). UUIDs, e-mail addresses and
/// SPIFFE ids fit.
pub(crate) const IDENTITY_BYTES_MAX: usize = 256;

/// Bytes of an API key that the filter hashes. Tokens of several KiB fit; events contain the hash.
pub(crate) const API_KEY_BYTES_MAX: usize = 8192;

/// Nested containers that the JSON scanner follows by name: the deepest, in a batch of Gemini, are
/// 13. It skips deeper ones by their brackets.
pub(crate) const TRACKED_DEPTH_MAX: usize = 14;

/// Elements with a name and a count, such as tokens by modality, that the filter keeps of a
/// document. Beyond this number, the usage counts as inconsistent.
pub(crate) const DOCUMENT_ITEMS_MAX: usize = 32;

/// Objects within a document, such as the iterations of an agent's turn, that the filter keeps as
/// documents of their own. Beyond this number, the usage counts as inconsistent.
pub(crate) const DOCUMENT_RECORDS_MAX: usize = 64;

/// Values of one member that the filter keeps if it is not certain which one a server takes.
pub(crate) const DOUBTS_MAX: usize = 3;

/// Units beside tokens, each with its variant, that the filter keeps of a generation.
pub(crate) const UNITS_MAX: usize = 12;

/// Models and purposes of further runs within one response that the filter reports apart. Beyond
/// this number, they count as runs of the last one, and the usage as inconsistent.
pub(crate) const FURTHER_RUNS_MAX: usize = 4;

/// Decoded bytes that the filter accepts for each byte of an encoded body; JSON reaches about 20.
/// Beyond this ratio and [`DECODED_BYTES_FREE`], the filter stops decoding.
pub(crate) const DECODED_RATIO_MAX: u64 = 200;

/// Decoded bytes that the filter accepts from any encoded body, on top of that ratio.
pub(crate) const DECODED_BYTES_FREE: u64 = 1024 * 1024;

/// Decoded bytes that the filter accepts of one encoded body: decoding them takes about 60 ms.
pub(crate) const DECODED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes that one worker decodes in a second for all identities, and for one of them.
pub(crate) const DECODED_BYTES_PER_SECOND_MAX: u64 = 64 * 1024 * 1024;
/// See [`DECODED_BYTES_PER_SECOND_MAX`].
pub(crate) const DECODED_BYTES_PER_SECOND_AND_IDENTITY_MAX: u64 = 16 * 1024 * 1024;

/// Identities whose decoded bytes a worker counts apart in one second; all others share one count.
pub(crate) const DECODING_IDENTITIES_MAX: usize = 1024;

/// Calls that the filter follows in one exchange. JSON-RPC batches are small in practice; servers
/// reject large ones.
pub(crate) const CALLS_PER_EXCHANGE_MAX: usize = 1024;

/// Bytes that the filter keeps of an `endpoint` event, and of a request's path.
pub(crate) const ENDPOINT_BYTES_MAX: usize = 1024;

/// Open calls that may get their response on another stream. Beyond this number, the customer with
/// the most of them gives way: the accountant ends its oldest.
pub(crate) const JOINS_MAX: usize = 10_000;

/// Running tool calls to which the accountant can attribute generations, at about 300 bytes each.
pub(crate) const RUNNING_CALLS_MAX: usize = 10_000;

/// Running generations whose cause the accountant knows or looks for, at about 300 bytes each.
pub(crate) const RUNNING_GENERATIONS_MAX: usize = 10_000;

/// Bytes of an event that the filter buffers to see whether it is the usage chunk that the provider
/// sends only because of `ask_for_usage`. That chunk has about 500 bytes.
pub(crate) const HELD_EVENT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of text for each token where the filter has to estimate usage: about right for English.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// Bytes of encoded data, such as an image in a request, for each token where the filter has to
/// estimate usage: providers charge a picture of a megabyte with 250 to 2,500 tokens.
pub(crate) const DATA_BYTES_PER_TOKEN: u64 = 512;

/// Bytes of one block of a request, which the filter takes for text or for encoded data as a whole.
pub(crate) const TEXT_BLOCK_BYTES: usize = 1024;

/// The time in milliseconds after which the accountant considers a running generation lost.
pub(crate) const GENERATION_TIME_MAX_MS: u64 = 24 * 3_600_000;

/// Readings of all journals during which an ended call can still be found as the cause of a
/// generation: in the first, the accountant reads the generation's start; in the second, it reads
/// everything that the workers wrote before that start.
pub(crate) const CAUSE_READINGS: u64 = 2;

/// Further readings for which the accountant knows a call after its end, as a busy Envoy may see the
/// request of a generation late: a second. Where the table is full they are forgotten first.
pub(crate) const LATE_READINGS: u64 = 4;

/// Pages of what the accountant remembers of late: of generations that it has counted, and of
/// answers that were used, because it may observe either again.
pub(crate) const RECENT_PAGES: usize = 32;

/// Items in one of these pages; all pages together hold about 4,000.
pub(crate) const RECENT_PAGE_ITEMS: usize = 128;

/// Pages of batch results that the accountant has counted, about 131,000 of them, as clients may
/// fetch a file of results again. The largest batches hold 100,000.
pub(crate) const BATCH_PAGES: usize = 1024;

/// Results that the filter takes from one chunk of a file of batch results, at about 500 bytes each:
/// a chunk of 64 KiB without a coding holds some hundred.
pub(crate) const BATCH_RESULTS_PER_CHUNK_MAX: usize = 4096;

/// Estimated generations that wait for the provider's own counts, at about 500 bytes each. Beyond
/// this number, the accountant bills the first of them.
pub(crate) const ESTIMATES_MAX: usize = 128;

/// Milliseconds that an estimated generation waits for the provider's own counts: clients that lose
/// a stream resume it, or poll the response, within seconds.
pub(crate) const ESTIMATE_WAIT_MS: u64 = 30_000;

/// Generations that were billed before everything about them was told, and wait for their truth, at
/// about 1 KiB each. Beyond this number, the customer with the most of them gives way: the
/// accountant forgets its oldest, whose truth is then dropped.
pub(crate) const PROVISIONAL_MAX: usize = 1024;

/// Generations that were asked for and that a later response tells, at about 150 bytes each. Beyond
/// this number, the customer with the most of them gives way: the accountant forgets its oldest,
/// which then counts only if it is polled within [`SEEN_AGE_MAX_S`].
pub(crate) const AWAITED_MAX: usize = 4096;

/// The age in seconds beyond which the accountant takes a generation that it observes again for one
/// that it has counted: on a busy day, its memory does not reach further back.
pub(crate) const SEEN_AGE_MAX_S: u64 = 24 * 3600;

/// Models that one session lists separately; it adds up further ones under [`OTHER`].
pub(crate) const MODELS_PER_SESSION_MAX: usize = 32;

/// Session ends that wait for the next reading of all journals. Beyond this number, the customer
/// with the most of them gives way: its last session ends by its timeout.
pub(crate) const SESSION_ENDS_MAX: usize = 4096;

/// Updates that the accountant keeps for calls that it has not yet read from a journal. Beyond this
/// number, the customer with the most of them gives way: the accountant forgets its oldest.
pub(crate) const EVIDENCE_MAX: usize = 4096;

/// Events of a stream without a session by which its client may resume it: it may not have received
/// the last ones.
pub(crate) const STREAM_EVENTS_MAX: usize = 4;

/// How long, at most, the accountant waits for a sign of life of a session of which a server says
/// that it does not know it, in milliseconds.
pub(crate) const SESSION_GONE_MS: u64 = 30_000;

/// How many milliseconds longer than a call may stay open the accountant keeps updates about it:
/// workers check open calls every [`RUNNING_INTERVAL_MS_MAX`] at the latest, and the accountant
/// reads their facts on a later tick.
pub(crate) const EVIDENCE_SLACK_MS: u64 = 60_000;

/// Exchanges that one worker follows at once, at about 1 KiB each.
pub(crate) const EXCHANGES_MAX: usize = 65_536;

/// The longest time between two signs of life of a running call, in milliseconds.
pub(crate) const RUNNING_INTERVAL_MS_MAX: u64 = 15_000;

/// Bytes of one page of a journal. The host copies a page in 0.2 us, as fast as a smaller one.
pub(crate) const JOURNAL_PAGE_BYTES_MAX: usize = 4096;

/// Pages of one journal: about 7,000 facts between two ticks of the accountant.
pub(crate) const JOURNAL_PAGES: u64 = 256;

/// Journals of one plugin: one for each worker, and spare ones for workers that crash in a loop.
pub(crate) const JOURNALS_MAX: u32 = 256;

/// Configurations that are known at a time under a plugin's name: the one in force, and those before
/// whose calls may still have to be priced. Shared data holds their texts.
pub(crate) const CONFIGURATIONS_MAX: usize = 4;

/// VMs that can live at a time under a plugin's name; see [`crate::shared_data::vms`].
pub(crate) const VMS_MAX: u32 = 1024;

/// The silence after which a VM counts as dead to one that has not watched it.
pub(crate) const VM_SILENCE_MS_MAX: u64 = 10_000;

/// Ticks of silence after which a VM counts as dead to one that watches it.
pub(crate) const VM_SILENT_TICKS_MAX: u32 = LEASE_TICKS_MAIN;

/// Facts that a worker holds in memory while its journal is full. Beyond this number, the customer
/// with the most of them gives way: its calls are added up.
pub(crate) const OVERFLOW_FACTS_MAX: usize = 1024;

/// Facts of one customer in that memory beyond which the worker refuses the requests of the
/// customer with the most.
pub(crate) const OVERFLOW_FACTS_PER_CUSTOMER_MAX: usize = 128;

/// How long a worker adds up calls that are alike before it writes them as one fact, in
/// milliseconds.
pub(crate) const FOLD_MS: u64 = 1000;

/// Sums of calls that a worker keeps, at about 500 bytes each, and those of one customer. Further
/// calls of a customer are added up under [`OTHER`] for each product and price.
pub(crate) const FOLDED_CALLS_MAX: usize = 4096;
/// See [`FOLDED_CALLS_MAX`].
pub(crate) const FOLDED_CALLS_PER_CUSTOMER_MAX: usize = 64;

/// What the accountant does in one piece if more comes than smaller pieces can do from one tick to
/// the next: facts, generations, and ends of calls and sessions, at about 10 us each.
pub(crate) const PIECE_MAX: usize = 4096;

/// Sessions that become idle or time out from one tick to the next. After a pause of the process all
/// may be due at once: they would make more events than the outbox holds.
pub(crate) const DUE_PER_TICK_MAX: usize = 4096;

/// Scopes whose totals guards keep, at about 600 bytes each. Beyond this number, the customer with
/// the most scopes of one guard gives way: its least recently active scope becomes a part of its
/// rest. Scopes for the rest, and those of customers that have only one, may be as many again.
pub(crate) const GUARD_SCOPES_MAX: usize = 10_000;

/// Scopes that one customer may have with one guard. The accountant adds up further ones in one
/// scope for the rest, named [`OTHER`].
pub(crate) const GUARD_SCOPES_PER_CUSTOMER_MAX: usize = 1024;

/// Buckets (keys of shared data) for scope statuses, reservation counters and last costs, by the
/// hash of the scope. About ten scopes share one when the table is full.
pub(crate) const GUARD_BUCKETS: u32 = 1024;

/// Reservation counters in one bucket.
pub(crate) const RESERVATION_COUNTERS_MAX: usize = 64;

/// How often a worker tries to update a counter while other workers write it. Each failure is
/// another worker's success.
pub(crate) const COUNTER_TRIES_MAX: usize = 256;

/// Whose calls an operator may pause at once: every VM reads the list on each tick.
pub(crate) const PAUSES_MAX: usize = 128;

/// Tools whose last cost the accountant remembers in one bucket.
pub(crate) const LAST_COSTS_MAX: usize = 16;

/// Open reservations, at about 300 bytes each. Beyond this number, the accountant releases a new
/// reservation at once.
pub(crate) const RESERVATIONS_MAX: usize = 10_000;

/// Readings of all journals between a call's end and the release of its reservation. In this time
/// the accountant reads the generations that the call caused.
pub(crate) const RESERVATION_READINGS: u64 = 3;

/// Checks, one every [`TOTALS_TICKS`], that must find the same reserved amount without an open
/// reservation before the next check releases it.
pub(crate) const LEAK_READINGS: u32 = 4;

/// Different calls (tool and arguments) that the filter compares to detect repetition in one
/// session, at 100 to 400 bytes each. It does not recognise an agent that repeats a cycle of more
/// calls.
pub(crate) const REPEATS_PER_SCOPE_MAX: usize = 8;

/// Milliseconds between two checks whether guards want a running stream to end.
pub(crate) const STOP_LOOK_INTERVAL_MS: u64 = 100;

/// Milliseconds that a client has to leave a stream after the filter ended it; then the filter
/// closes the stream.
pub(crate) const STOP_GRACE_MS: u64 = 500;

/// Ticks of the accountant between two reports of a scope's totals: 1 s.
pub(crate) const TOTALS_TICKS: u64 = 4;

/// Scopes whose totals the accountant reports at one time.
pub(crate) const TOTALS_PER_TICK_MAX: usize = 512;

/// Ticks of the accountant between two questions for a balance that is spent or not known: 5 s.
pub(crate) const BALANCE_TICKS: u64 = 20;

/// How many of these pass between two questions for other balances: 60 s.
pub(crate) const BALANCE_IDLE_POLLS: u64 = 12;

/// Milliseconds after the last call for which the accountant asks for the balance of a scope.
pub(crate) const BALANCE_ACTIVE_MS: u64 = 3_600_000;

/// Ticks of the accountant without a reply of the collector after which it considers the collector
/// lost: 30 s.
pub(crate) const COLLECTOR_LOST_TICKS: u64 = 120;

/// Readings of all journals, one each tick, without a sign of life of a journal's owner after which
/// the accountant frees the drained journal for another VM.
pub(crate) const JOURNAL_ORPHAN_READINGS: u32 = 240;

/// Tools that one session lists separately; it adds up further ones under [`OTHER`].
pub(crate) const TOOLS_PER_SESSION_MAX: usize = 64;

/// The most entries of one rate card. The largest public list has 4,500 models; an entry takes
/// about 300 bytes in each worker.
pub(crate) const RATES_MAX: usize = 50_000;

/// The name under which the filter meters what does not fit a bounded table.
pub const OTHER: &str = "__other__";

/// Separate spans that a session keeps to add up its active time.
pub(crate) const ACTIVE_SPANS_MAX: usize = 32;

/// Batches in the outbox, each of up to `batch_events_max` events.
pub(crate) const OUTBOX_BATCHES_MAX: u64 = 1024;

/// Events that fill a batch while the collector is down: about 450 kB, which a tick writes to shared
/// data twice.
pub(crate) const PAUSED_BATCH_EVENTS: u64 = 512;

/// The batches, at least, that a retry horizon makes while the collector is down, however little
/// there is to tell.
pub(crate) const PAUSED_BATCHES: u64 = 64;

/// Headers of the configuration that each delivery request carries, and the bytes of one's value.
pub(crate) const COLLECTOR_HEADERS_MAX: usize = 16;
pub(crate) const COLLECTOR_HEADER_BYTES_MAX: usize = 4096;

/// UTF-16 code units of Aforo's name of a unit.
pub(crate) const METRIC_NAME_UNITS_MAX: usize = 255;

/// Bytes of one batch. Collectors commonly refuse bodies above 1 MiB.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Ticks that a VM which never served a stream (Envoy's main thread) waits for a silent accountant.
pub(crate) const LEASE_TICKS_MAIN: u32 = 4;

/// Ticks that a worker waits for a silent accountant. They are more, so that the VM on the main
/// thread takes the lease first.
pub(crate) const LEASE_TICKS_WORKER: u32 = 12;

/// Ticks of silence after which a VM that Envoy is stopping considers the accountant dead.
pub(crate) const LEASE_TICKS_LAST: u32 = 2;

const _: () = assert!(EVIDENCE_SLACK_MS > 2 * RUNNING_INTERVAL_MS_MAX);

const _: () = assert!(LEASE_TICKS_LAST < LEASE_TICKS_MAIN);

const _: () = assert!(LEASE_TICKS_MAIN < LEASE_TICKS_WORKER);

const _: () = assert!(VALUE_BYTES_MAX * 8 < JOURNAL_PAGE_BYTES_MAX);

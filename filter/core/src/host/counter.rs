//! The filter's metrics about itself. The list is closed: text from traffic never enters a metric's
//! name.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A counter of the filter. Envoy's stats name it `wasmcustom.agent_meter.<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// Every counter, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in Envoy's stats, without the prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it counts, in the words of its documentation: for the reference.
            #[cfg(feature = "schema")]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

counters! {
    /// Exchanges that matched a product.
    Exchanges = "exchanges",
    /// Requests that match no product; the filter lets them pass unmetered, or answers 403.
    RequestsUnmatched = "requests_unmatched",
    /// Requests of a product that carry no identity by design, `OPTIONS` and what looks for metadata
    /// below `/.well-known/`; the filter let them pass unmetered.
    RequestsExempt = "requests_exempt",
    /// Requests whose path two servers may read as those of two products; the filter answered 400.
    RequestsAmbiguous = "requests_ambiguous",
    /// Requests that the filter answered with 401 because their identity is missing or their
    /// credential is not the one that the product requires, and those of `identity_unusable`.
    RequestsRejected = "requests_rejected",
    /// Requests that the filter answered with 400 or 401 because what names their caller is
    /// ambiguous: it comes twice, is empty, too long, not text, or a name that nobody can have.
    IdentityUnusable = "identity_unusable",
    /// Requests that the filter did not meter because another filter of this kind has: on the same
    /// stream in this Envoy or, by a trusted header, in another.
    RequestsAlreadyMetered = "requests_already_metered",
    /// Requests that the filter did not meter because Envoy mirrored them.
    RequestsShadowed = "requests_shadowed",
    /// Requests that the filter metered although their credential is not the one that the product
    /// expects.
    CredentialMismatch = "credential_mismatch",
    /// Requests to a product's `close_path`.
    SessionsClosedByRequest = "sessions_closed_by_request",
    /// Calls of every kind (tool calls, API calls, steps of agents), each counted once: there are as
    /// many events of calls, but for those in flight and in `facts_spilled`.
    Calls = "calls",
    /// Requests whose stream ended before the filter had read their message: a later filter, or the
    /// server, answered first, or the client left. Their heads do not say whether they make a call.
    ExchangesUnread = "exchanges_unread",
    /// Requests of MCP and A2A, and for generations, that the filter did not understand for certain.
    RequestUnparsed = "request_unparsed",
    /// Those of them that it rejected.
    RequestsUnreadable = "requests_unreadable",
    /// Calls that the filter counted although it did not understand their requests for certain, or
    /// could not decode their responses.
    CallsInferred = "calls_inferred",
    /// Response bodies that the filter could not parse; their calls ended as UNKNOWN or by HTTP
    /// status.
    ResponseUnparsed = "response_unparsed",
    /// JSON-RPC responses that match no call: without an id, or on a stream that belongs to no
    /// session.
    AnswerUnmatched = "answer_unmatched",
    /// Responses and task reports that the filter observed twice, or for a call that it never saw,
    /// and those beyond [`EVIDENCE_MAX`](crate::base::limits::EVIDENCE_MAX).
    EvidenceUnused = "evidence_unused",
    /// Ends of sessions that had no calls or were already closed, and ends beyond
    /// [`SESSION_ENDS_MAX`](crate::base::limits::SESSION_ENDS_MAX).
    SessionEndUnused = "session_end_unused",
    /// Event streams that a client resumed (`Last-Event-ID`) without naming a session, or naming
    /// several: what they answer may be counted as UNKNOWN.
    ResumesUnnamed = "resumes_unnamed",
    /// Calls that a server redirected: they count with the request that the client sends then.
    CallsRedirected = "calls_redirected",
    /// Calls that the accountant ended early because too many waited for another stream's response:
    /// the oldest of the customer with the most.
    JoinsOverLimit = "joins_over_limit",
    /// Calls beyond the number that the filter follows in one exchange.
    CallsOverLimit = "calls_over_limit",
    /// Exchanges that the filter did not meter because too many were open at once.
    ExchangesOverLimit = "exchanges_over_limit",
    /// Requests for a generation, and tool results that reported one.
    Generations = "generations",
    /// Generations that ended with an HTTP error and without usage, and requests that a guard
    /// refused: there is nothing to bill.
    GenerationsRefused = "generations_refused",
    /// Requests to products with `llm` that may have made a generation and that the filter does not
    /// read: paths of no known endpoint, batches until their results are fetched, gRPC, and
    /// upgrades. With `unseen: reject` it has refused them.
    LlmRequestsUnseen = "llm_requests_unseen",
    /// Requests for a WebSocket on which the filter meters generations.
    WebSockets = "websockets",
    /// Those on which it could not read everything: messages in a coding that an extension gives
    /// them, that are no JSON, or bytes that are no frames. Each makes a generation of which nothing
    /// is known.
    WebSocketsUnread = "websockets_unread",
    /// Requests for a WebSocket that the filter answered with 426.
    WebSocketsRefused = "websockets_refused",
    /// Results of batches that the filter could not take because too many came at once, lines
    /// between them that it could not read, and files of them whose end it could not read.
    BatchResultsUnread = "batch_results_unread",
    /// Generations that the filter observed again after it had counted them.
    GenerationsToldAgain = "generations_told_again",
    /// Generations that the filter knows only from a response that a client asked for more than a
    /// day after they were created: it took them for counted.
    GenerationsTooOld = "generations_too_old",
    /// Generations that were billed before everything about them was told, by an estimate for
    /// instance, and whose truth came later: its event supersedes theirs.
    GenerationsCorrected = "generations_corrected",
    /// Generations that were billed before everything about them was told and that the accountant
    /// forgot, because too many were: should their truth come, it is dropped.
    CorrectionsForgotten = "corrections_forgotten",
    /// Generations for which the accountant claims no cost, such as those without a rate or usage.
    GenerationsUnpriced = "generations_unpriced",
    /// Generations whose response did not report usage.
    UsageUnknown = "usage_unknown",
    /// Generations whose counts contradict each other, such as a part that is larger than its whole,
    /// or of which something that bears on the price could not be read, in the response or the request.
    UsageInconsistent = "usage_inconsistent",
    /// Generations that used something beside tokens of which the rate card has no price.
    UnitsUnpriced = "units_unpriced",
    /// Generations whose computed cost differs from the one that the provider reports by more than
    /// `cost_difference_above`.
    CostDisputed = "cost_disputed",
    /// Generations for which Envoy's own filter reported other counts; this filter keeps its own.
    UsageDisagreement = "usage_disagreement",
    /// Calls and generations that the accountant could not join because too many ran.
    AttributionOverLimit = "attribution_over_limit",
    /// Facts that waited in a worker's memory because its journal was full.
    JournalFull = "journal_full",
    /// Requests that the filter refused with 429 because the journal was full and their customer had
    /// the most facts that waited.
    RequestsOverShare = "requests_over_share",
    /// Requests whose heads name no session and that the filter refused with 503 because an operator drains.
    RequestsDraining = "requests_draining",
    /// Requests that the filter refused with 503 because an operator or a guard has paused them.
    RequestsPaused = "requests_paused",
    /// Calls that a worker added up because they were refused like others in the same second, or
    /// because the journal was full and their customer had the most facts that waited.
    CallsFolded = "calls_folded",
    /// Signs of calls that run that a worker left out for the same reason. What these calls cause is
    /// not attributed to them.
    FactsLeftOut = "facts_left_out",
    /// Facts that the accountant never received: the worker wrote them to Envoy's log because
    /// journal and memory were full.
    FactsSpilled = "facts_spilled",
    /// Facts in a journal that the accountant could not decode.
    FactsUnreadable = "facts_unreadable",
    /// Facts about a product that is no longer in the configuration; the accountant meters them
    /// without a price.
    ProductUnknown = "product_unknown",
    /// Requests that a guard refused at its third level, or because running calls have reserved all
    /// that is left.
    GuardBlocked = "guard_blocked",
    /// Requests that a guard refused because they exceeded the rate of its throttle.
    GuardThrottled = "guard_throttled",
    /// Requests that an observe-only guard would have blocked.
    GuardWouldBlock = "guard_would_block",
    /// Requests that an observe-only guard would have throttled.
    GuardWouldThrottle = "guard_would_throttle",
    /// Responses that a guard at its third level ended before they were complete.
    GuardStopped = "guard_stopped",
    /// Responses that an observe-only guard would have ended.
    GuardWouldStop = "guard_would_stop",
    /// Requests for tools that the customer's plan does not include.
    ToolsNotInPlan = "tools_not_in_plan",
    /// Counter updates that a worker gave up because others kept writing the same bucket; the
    /// request passed.
    GuardContended = "guard_contended",
    /// Times that the accountant added to a customer's scope for the rest, because the customer had
    /// more scopes than its share, or the table was full.
    GuardScopesOverLimit = "guard_scopes_over_limit",
    /// Reservations that the accountant released early because too many were open.
    HoldsOverLimit = "holds_over_limit",
    /// Times that the accountant settled a reserved amount without an open reservation, such as
    /// after a VM died.
    HoldsLeaked = "holds_leaked",
    /// Fleet totals from the collector for a scope or period that this Envoy does not have.
    VerdictsUnused = "verdicts_unused",
    /// Tools that the accountant metered under `__other__` because a session used too many.
    ToolsOverLimit = "tools_over_limit",
    /// Amounts that made a total too large for a decimal; the total stayed as it was.
    MoneyOverflow = "money_overflow",
    /// Times that a VM took the accountant's lease.
    LeaseTaken = "lease_taken",
    /// Times that the accountant found that another VM had taken its lease.
    LeaseLost = "lease_lost",
    /// Times that the accountant gave its lease to a VM of a later configuration.
    LeaseHandedOver = "lease_handed_over",
    /// Slots of the accountant's state that it could not decode when it started.
    SlotsUnreadable = "slots_unreadable",
    /// Batches sent to the collector, retries included.
    BatchesSent = "batches_sent",
    /// Batches that the collector did not accept.
    BatchesFailed = "batches_failed",
    /// Of these, batches to which a success came back that is no receipt: a page, a text that is not
    /// JSON, or a count that leaves events out.
    BatchesWithoutReceipt = "batches_without_receipt",
    /// Events that the collector refused permanently.
    EventsRefused = "events_refused",
    /// Events that `collector.format` does not send: they are in `events_made`, and nowhere else.
    EventsLeftOut = "events_left_out",
    /// Of these, events without which the receiver may charge too little: generations that take the
    /// place of earlier ones, and generations of no tokens.
    EventsWithheld = "events_withheld",
    /// Sessions that a receiver of `collector.format: aforo` wants ended. The filter ends none.
    SessionsToEnd = "sessions_to_end",
}

macro_rules! gauges {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A gauge of the accountant. Envoy's stats name it `wasmcustom.agent_meter.<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Gauge { $($(#[doc = $doc])+ $variant,)+ }

        impl Gauge {
            /// Every gauge, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in Envoy's stats, without the prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it counts, in the words of its documentation: for the reference.
            #[cfg(feature = "schema")]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

gauges! {
    /// Events that this Envoy process has made since it started.
    EventsMade = "events_made",
    /// Events that the collector accepted.
    EventsAcked = "events_acked",
    /// Events written to Envoy's log instead of being delivered.
    EventsSpilled = "events_spilled",
    /// Events that were made and neither delivered nor written to the log.
    OutboxEvents = "outbox_events",
    /// Configurations under the plugin's name of which a VM lives: more than one while a listener
    /// drains, or where two filters have one name.
    ConfigurationsLive = "configurations_live",
    /// Sessions that are not closed.
    SessionsLive = "sessions_live",
}

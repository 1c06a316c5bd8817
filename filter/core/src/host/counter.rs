//! What the filter counts about itself. The list is closed: nothing from traffic gets into a metric's name.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A counter of the filter; in Envoy's stats as `wasmcustom.agent_meter.<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// Every counter, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in Envoy's stats, without the prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Exchanges that matched a product.
    Exchanges = "exchanges",
    /// Requests that were answered 401 because their identity or credential is not what the product asks for.
    RequestsRejected = "requests_rejected",
    /// Requests whose token was got in another way than the product expects, and that were metered nevertheless.
    CredentialMismatch = "credential_mismatch",
    /// Requests to a product's `close_path`.
    SessionsClosedByRequest = "sessions_closed_by_request",
    /// Tool calls seen in requests.
    Calls = "calls",
    /// Request bodies that could not be read as JSON-RPC; they passed untouched.
    RequestUnparsed = "request_unparsed",
    /// Response bodies that could not be read; the calls in them ended as UNKNOWN or by their HTTP status.
    ResponseUnparsed = "response_unparsed",
    /// JSON-RPC answers that belonged to no call: without an id, or on a stream that belongs to no session.
    AnswerUnmatched = "answer_unmatched",
    /// Answers and task reports that came again, or for a call that was never seen.
    EvidenceUnused = "evidence_unused",
    /// Ends of sessions without calls, of sessions that were closed already, or too many at once.
    SessionEndUnused = "session_end_unused",
    /// Calls that were over early because too many were waiting for an answer on another stream.
    JoinsOverLimit = "joins_over_limit",
    /// Calls beyond the bound of calls followed in one exchange.
    CallsOverLimit = "calls_over_limit",
    /// Exchanges that were not metered because too many were open at once.
    ExchangesOverLimit = "exchanges_over_limit",
    /// Requests that made a generation, or asked for one.
    Generations = "generations",
    /// Generations that the provider refused with an HTTP error and without telling any usage: there is nothing to bill.
    GenerationsRefused = "generations_refused",
    /// Generations that were told again, and had been counted.
    GenerationsToldAgain = "generations_told_again",
    /// Generations for which no cost is claimed: without a rate, or of unknown usage.
    GenerationsUnpriced = "generations_unpriced",
    /// Generations whose usage the response did not tell.
    UsageUnknown = "usage_unknown",
    /// Generations whose counts contradict each other: a part larger than its whole.
    UsageInconsistent = "usage_inconsistent",
    /// Generations of which Envoy's own filter told other counts; the filter's own stand.
    UsageDisagreement = "usage_disagreement",
    /// Calls and generations that could not be joined because too many ran.
    AttributionOverLimit = "attribution_over_limit",
    /// Facts that waited in memory because the journal was full.
    JournalFull = "journal_full",
    /// Facts lost to the accountant: written to Envoy's log because journal and memory were full.
    FactsSpilled = "facts_spilled",
    /// Facts in a journal that could not be read.
    FactsUnreadable = "facts_unreadable",
    /// Facts of a product that the configuration no longer has; metered at no price.
    ProductUnknown = "product_unknown",
    /// Requests that a guard refused at its third level, or because calls that run have taken what is left.
    GuardBlocked = "guard_blocked",
    /// Requests that a guard refused because more came than its throttle lets pass.
    GuardThrottled = "guard_throttled",
    /// Requests that a guard would have blocked if it enforced.
    GuardWouldBlock = "guard_would_block",
    /// Requests that a guard would have throttled if it enforced.
    GuardWouldThrottle = "guard_would_throttle",
    /// Responses that a guard ended in the middle, at its third level.
    GuardStopped = "guard_stopped",
    /// Responses that a guard would have ended if it enforced.
    GuardWouldStop = "guard_would_stop",
    /// Requests for tools that the customer's plan does not have.
    ToolsNotInPlan = "tools_not_in_plan",
    /// Requests that passed because other workers kept writing what a guard had to note.
    GuardContended = "guard_contended",
    /// Scopes whose totals were forgotten because guards added up too many.
    GuardScopesOverLimit = "guard_scopes_over_limit",
    /// Calls whose room was given back early because too many had taken some.
    HoldsOverLimit = "holds_over_limit",
    /// Times that room was given back of which nobody told: a VM died in between.
    HoldsLeaked = "holds_leaked",
    /// What the collector told of other Envoys' totals for a scope or period that is not there.
    VerdictsUnused = "verdicts_unused",
    /// Tools metered under `__other__` because a session used too many.
    ToolsOverLimit = "tools_over_limit",
    /// Amounts that no decimal can hold; the total was left as it was.
    MoneyOverflow = "money_overflow",
    /// Times that a VM took the accountant's lease.
    LeaseTaken = "lease_taken",
    /// Times that the accountant found that another VM had taken over.
    LeaseLost = "lease_lost",
    /// Slots of the accountant that could not be read when it started.
    SlotsUnreadable = "slots_unreadable",
    /// Batches sent to the collector, retries included.
    BatchesSent = "batches_sent",
    /// Batches that the collector did not take.
    BatchesFailed = "batches_failed",
    /// Events that the collector refused for good.
    EventsRefused = "events_refused",
}

macro_rules! gauges {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A gauge of the accountant; in Envoy's stats as `wasmcustom.agent_meter.<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Gauge { $($(#[doc = $doc])+ $variant,)+ }

        impl Gauge {
            /// Every gauge, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in Envoy's stats, without the prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

gauges! {
    /// Events made in the life of this Envoy process.
    EventsMade = "events_made",
    /// Events that the collector took.
    EventsAcked = "events_acked",
    /// Events written to Envoy's log instead of being delivered.
    EventsSpilled = "events_spilled",
    /// Events made and not yet delivered or spilled.
    OutboxEvents = "outbox_events",
    /// Sessions that are not closed.
    SessionsLive = "sessions_live",
}

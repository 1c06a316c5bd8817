//! What the proxy does with a stream, as the meter decides.

use crate::domain::level::Level;
use crate::exchange::kind::BodyInterest;
use crate::wire::http::LocalReply;

/// What a VM knows about the place where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmInfo {
    /// The plugin's name in Envoy. Plugins with the same name share one accountant.
    pub plugin: String,
    /// Envoy's node id.
    pub node: String,
    /// Anything that differs between two VMs started at different times, such as the clock in
    /// nanoseconds.
    pub seed: u64,
    /// How much the accountant does in one piece, between which its thread serves others: facts,
    /// generations, and ends of calls and sessions, at about 10 us each.
    pub piece: usize,
}

/// The changes to make to a request's head before it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestEdit {
    /// The `accept-encoding` to send instead of the client's.
    pub accept_encoding: Option<String>,
    /// True if the body may get longer, so that the head must not state its length.
    pub is_length_unknown: bool,
    /// Headers to remove.
    pub remove: Vec<String>,
    /// Headers to set, after the others are removed.
    pub set: Vec<(String, String)>,
    /// What the stream's filter state says under
    /// [`MARK`](crate::admission::already_metered::MARK): that this filter meters it.
    pub metered_as: Option<String>,
    /// What the meter wants of the body.
    pub body_interest: BodyInterest,
    /// The level of the guards' scopes, which headers report: see [`crate::guard::mark`].
    pub mark: Level,
    /// True if the proxy holds the body until the message is known: see
    /// [`Meter::request_body`](crate::meter::Meter::request_body). The head goes on, because Envoy
    /// shows no body of a request whose head is held.
    pub is_held: bool,
}

/// What to do with a part of a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyAction {
    /// Send it on, with everything that was held. If there are bytes here, send them instead.
    Go(Option<Vec<u8>>),
    /// Hold it.
    Hold,
    /// Answer the request with this.
    Answer(LocalReply),
}

/// What to do with a stream whose request has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadAction {
    /// Let it pass unchanged. The meter need not see the rest.
    Pass,
    /// Let it pass with this change. The meter need not see the rest.
    Forget(RequestEdit),
    /// Let it pass with this change. The meter must see the rest.
    Follow(RequestEdit),
    /// Answer it with this.
    Answer(LocalReply),
}

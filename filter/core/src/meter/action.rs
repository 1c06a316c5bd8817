//! What the proxy is told to do with a stream.

use crate::domain::level::Level;
use crate::exchange::kind::BodyInterest;
use crate::wire::http::LocalReply;

/// What a VM knows of where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmInfo {
    /// The plugin's name in Envoy: plugins that have the same share one accountant.
    pub plugin: String,
    /// Envoy's node id.
    pub node: String,
    /// Anything that differs between two VMs started at different times, such as the clock in nanoseconds.
    pub seed: u64,
}

/// What is to be changed in a request's head before it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestEdit {
    /// The `accept-encoding` to send instead of the client's.
    pub accept_encoding: Option<String>,
    /// The body may get longer: its length is not told.
    pub is_length_unknown: bool,
    /// Headers to take out.
    pub remove: Vec<String>,
    /// What is to be shown of the body.
    pub shows: BodyInterest,
    /// The level of the guards' scopes, which headers tell: see [`crate::guard::mark`].
    pub mark: Level,
    /// Its body does not go on before its message is known: see [`Meter::request_body`]. The head does, as Envoy shows
    /// no body of a request whose head is held.
    pub is_held: bool,
}

/// What becomes of a part of a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyAction {
    /// It goes on, and with it everything that was held; instead of it these bytes, if it may not pass as it is.
    Go(Option<Vec<u8>>),
    /// It is held.
    Hold,
    /// The request is answered with this.
    Answer(LocalReply),
}

/// What becomes of a stream whose request has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadAction {
    /// It goes on as it is, and need not be shown further.
    Pass,
    /// It goes on with this change, and need not be shown further.
    Forget(RequestEdit),
    /// It goes on with this change, and is to be shown.
    Follow(RequestEdit),
    /// It is to be answered with this.
    Answer(LocalReply),
}

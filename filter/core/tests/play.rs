//! Calls that a seed makes up: with ids that are the same for each call or rise, and answers that
//! come on the call's own stream, on another, twice, repeated, or never.

use crate::dice::Dice;

/// What comes on a call's own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnStream {
    /// The answer as a JSON body.
    Json,
    /// The answer as an event.
    Event,
    /// Status 202, and nothing more.
    Accepted,
    /// The head of an event stream, which is cut.
    Cut,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Play {
    pub(crate) session: u64,
    /// The name of the tool, which no other call of the plan has.
    pub(crate) tool: String,
    /// The JSON-RPC id.
    pub(crate) id: u64,
    pub(crate) own: OwnStream,
    /// The event in which the answer comes on another stream, at least once.
    pub(crate) elsewhere: Option<String>,
}

impl Play {
    /// Makes up a call. `has_own_id` says whether no other call of the session has its id.
    pub(crate) fn new(
        dice: &mut Dice,
        session: u64,
        tool: String,
        id: u64,
        has_own_id: bool,
    ) -> Self {
        let own = match dice.below(4) {
            0 => OwnStream::Json,
            1 => OwnStream::Event,
            2 => OwnStream::Accepted,
            _ => OwnStream::Cut,
        };
        let mut play = Self { session, tool, id, own, elsewhere: None };
        if dice.below(2) == 0 {
            // Whether a later call with the same id was answered with the same text, or an earlier
            // answer came once more, only its event can tell; or that the earlier one had come on
            // its call's own stream.
            let event = match dice.below(3) {
                0 if play.is_answered_on_own() => format!("data: {}\n\n", play.answer()),
                1 if play.is_answered_on_own() && has_own_id => {
                    format!("id: again-{}", play.event())
                }
                _ => format!("id: {}", play.event()),
            };
            play.elsewhere = Some(event);
        }
        play
    }

    fn event(&self) -> String {
        format!("{}\ndata: {}\n\n", self.tool, self.answer())
    }

    /// The `tools/call`.
    pub(crate) fn request(&self) -> String {
        let Self { id, tool, .. } = self;
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#
        )
    }

    /// The answer, which is a success.
    pub(crate) fn answer(&self) -> String {
        let Self { id, tool, .. } = self;
        let content = format!(r#"[{{"type":"text","text":"{tool}"}}]"#);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":{content}}}}}"#)
    }

    /// The status of the response on the call's own stream, its media type, and its body.
    pub(crate) fn response(&self) -> (u16, &'static str, String) {
        match self.own {
            OwnStream::Json => (200, "application/json", self.answer()),
            OwnStream::Event => (200, "text/event-stream", format!("id: {}", self.event())),
            OwnStream::Accepted => (202, "text/plain", String::new()),
            OwnStream::Cut => (200, "text/event-stream", String::new()),
        }
    }

    /// Whether the answer comes on the call's own stream.
    pub(crate) fn is_answered_on_own(&self) -> bool {
        matches!(self.own, OwnStream::Json | OwnStream::Event)
    }
}

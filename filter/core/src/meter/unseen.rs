//! Tells of requests that start no exchange, although a generation may be made of them.

use crate::base::limits::UNSEEN_TEMPLATES_MAX;
use crate::exchange::Unmetered;
use crate::guard::refusal::Refusal;
use crate::host::Host;
use crate::host::counter::Counter;

/// The places of which the log tells already.
#[derive(Debug, Default)]
pub(super) struct UnseenPlaces {
    places: Vec<String>,
}

impl UnseenPlaces {
    /// Counts a request that is not metered. Returns the refusal, if the product refuses it.
    pub(super) fn count(&mut self, host: &mut impl Host, found: Unmetered) -> Option<Refusal> {
        match found {
            Unmetered::Free => None,
            Unmetered::WebSocket => {
                host.count(Counter::WebSocketsRefused, 1);
                Some(Refusal::upgrade())
            }
            Unmetered::Unseen { place, is_refused } => {
                host.count(Counter::LlmRequestsUnseen, 1);
                let is_new =
                    self.places.len() < UNSEEN_TEMPLATES_MAX && !self.places.contains(&place);
                if is_new {
                    let action = if is_refused { "reject" } else { "pass" };
                    host.warn(&format!("agent-meter unseen {place} action={action}"));
                    self.places.push(place);
                }
                is_refused.then(Refusal::unseen)
            }
        }
    }
}

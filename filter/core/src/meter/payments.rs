//! Payments in the headers of streams: a request offers one, and its response says that it is settled.

use std::collections::HashMap;

use crate::domain::payment::Payment;
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::Observed;
use crate::fact::Fact;
use crate::protocol::payment::{offered, settled};
use crate::wire::http::{Headers, ResponseHead, is_success};

/// The payments of the streams that offer one.
#[derive(Debug, Default)]
pub(super) struct HeaderPayments {
    by_stream: HashMap<u32, Payment>,
}

impl HeaderPayments {
    /// Takes the offer of a request's head.
    pub(super) fn request_head(&mut self, stream: u32, headers: Headers<'_>) {
        if let Some(offer) = offered(headers) {
            self.by_stream.insert(stream, offer);
        }
    }

    /// Takes the receipt of a response's head. What is not settled by a success is forgotten.
    pub(super) fn response_head(&mut self, stream: u32, head: &ResponseHead<'_>) {
        let Some(offer) = self.by_stream.remove(&stream) else { return };
        let receipt = settled(head.headers).filter(|_| is_success(head.status));
        if let Some(paid) = receipt.map(|receipt| offer.settled_by(receipt))
            && paid.is_settled()
        {
            self.by_stream.insert(stream, paid);
        }
    }

    /// Gives the payment of a stream to the first of its calls that succeeded: one payment is for
    /// one call.
    pub(super) fn pay(&mut self, stream: u32, observed: &mut Observed) {
        if !self.by_stream.get(&stream).is_some_and(Payment::is_settled) {
            return;
        }
        let first = observed.facts.iter_mut().find_map(|fact| match fact {
            Fact::Call(call) if call.status == ExecutionStatus::Success && !call.is_paid() => {
                Some(call)
            }
            _ => None,
        });
        if let Some(call) = first {
            call.payment = self.by_stream.remove(&stream).map(Box::new);
        }
    }

    /// Forgets a stream that is over.
    pub(super) fn stream_end(&mut self, stream: u32) {
        self.by_stream.remove(&stream);
    }
}

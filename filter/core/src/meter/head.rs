//! Where a stream begins: what its head decides.

use std::rc::Rc;

use crate::admission::{Admission, admit};
use crate::base::limits::EXCHANGES_MAX;
use crate::base::time::Timestamp;
use crate::config::TraceRule;
use crate::exchange::kind::BodyInterest;
use crate::exchange::{self, Exchange};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::meter::Meter;
use crate::meter::action::{HeadAction, RequestEdit};
use crate::protocol::call_proof::carried;
use crate::wire::accept_encoding::{ResponseEncoding, narrowed};
use crate::wire::http::Headers;

impl Meter {
    /// Handles the beginning of a stream.
    pub fn request_head(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        now: Timestamp,
    ) -> HeadAction {
        self.serves_streams = true;
        let config = Rc::clone(&self.config);
        let admission = admit(&config, headers, &mut |path| host.property(path), now);
        let admitted = match admission {
            Admission::Pass => return HeadAction::Pass,
            Admission::Answer { reply, fact, count } => {
                host.count(count, 1);
                if let Some(fact) = fact {
                    self.record_fact(host, &fact);
                }
                return HeadAction::Answer(reply);
            }
            Admission::Follow(admitted) => admitted,
        };
        let mut admitted = admitted;
        admitted.head.body.share = self.decode_budget.share(&admitted.head.identity.customer);
        let mismatches = u64::from(admitted.is_credential_mismatch);
        host.count(Counter::CredentialMismatch, mismatches);
        let product = Rc::clone(&admitted.product);
        let is_post = admitted.head.method == b"POST";
        let stripped = &product.identity.strip_headers;
        let is_sent = |name: &&String| headers.get(name).is_some();
        let remove = stripped.iter().filter(is_sent).cloned().collect::<Vec<_>>();
        let edit = RequestEdit { remove, ..RequestEdit::default() };
        if self.exchanges.len() >= EXCHANGES_MAX {
            host.count(Counter::ExchangesOverLimit, 1);
            return HeadAction::Forget(edit);
        }
        let id = self.next_id(host);
        let Some(mut exchange) = exchange::start(&config, admitted, id.clone()) else {
            return HeadAction::Forget(edit);
        };
        let set = self.prove(&mut *exchange, &id, headers);
        let edit = RequestEdit { set, ..edit };
        let edit = if config.guards.is_empty() && config.contracts.plans.is_empty() {
            edit
        } else {
            match self.guard_head(host, stream, &*exchange, is_post, now) {
                Ok((mark, is_held)) => RequestEdit { mark, is_held, ..edit },
                Err(refusal) => return self.refuse(host, exchange, &refusal, now),
            }
        };
        // What the head starts is told before the head goes on: the call may cause a generation.
        exchange.begin();
        let observed = exchange.take_observed();
        self.record(host, observed);
        let is_length_unknown = exchange.may_edit();
        let is_plain = is_length_unknown || self.may_stop(&*exchange);
        let rule = if is_plain { ResponseEncoding::Narrow } else { product.response_encoding };
        // Only what the exchange reads has to be readable.
        let body_interest = exchange.request_interest();
        let rule = if body_interest == BodyInterest::Size { ResponseEncoding::Leave } else { rule };
        let accept_encoding = narrowed(headers.get("accept-encoding"), rule);
        self.exchanges.insert(stream, exchange);
        HeadAction::Follow(RequestEdit {
            accept_encoding,
            is_length_unknown,
            body_interest,
            ..edit
        })
    }

    /// Returns the headers with which a request carries the proof of its calls.
    fn prove(
        &mut self,
        exchange: &mut dyn Exchange,
        id: &str,
        headers: Headers<'_>,
    ) -> Vec<(&'static str, String)> {
        if !exchange.wants_proof() {
            return Vec::new();
        }
        let proof = self.proofs.next(id, headers.get("x-request-id").unwrap_or_default());
        exchange.set_proof(proof);
        carried(headers, proof, exchange.product().trace == TraceRule::Own)
    }
}

//! Where a stream begins: what its head decides.

use std::rc::Rc;

use crate::admission::already_metered::{believed_headers, mark};
use crate::admission::{Admission, Admitted, admit};
use crate::base::limits::EXCHANGES_MAX;
use crate::base::time::Timestamp;
use crate::config::TraceRule;
use crate::config::product::Product;
use crate::exchange::kind::BodyInterest;
use crate::exchange::{self, Exchange};
use crate::guard::refusal::Refusal;
use crate::host::Host;
use crate::host::counter::Counter;
use crate::meter::Meter;
use crate::meter::action::{HeadAction, RequestEdit};
use crate::protocol::call_proof::carried;
use crate::wire::accept_encoding::{ResponseEncoding, narrowed};
use crate::wire::http::Headers;

/// The extensions of WebSocket that a client offers (RFC 6455, section 9.1).
const EXTENSIONS: &str = "sec-websocket-extensions";

impl Meter {
    /// Handles the beginning of a stream whose request may have a body.
    pub fn request_head(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        now: Timestamp,
    ) -> HeadAction {
        self.begin(host, stream, headers, false, now)
    }

    /// Handles the beginning of a stream whose request ends with its head.
    pub fn request_without_body(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        now: Timestamp,
    ) -> HeadAction {
        self.begin(host, stream, headers, true, now)
    }

    /// Begins a stream, and lets the page that made the request read what the filter answers, now
    /// or once it knows the body.
    fn begin(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        is_whole: bool,
        now: Timestamp,
    ) -> HeadAction {
        self.serves_streams = true;
        let action = match self.admitted(host, headers, is_whole, now) {
            Ok((admitted, edit)) => self.follow(host, stream, headers, admitted, edit, now),
            Err(action) => action,
        };
        let origin = self.config.cors.allowed_origin(headers);
        match action {
            HeadAction::Answer(mut reply) => {
                self.config.cors.let_read(&mut reply, origin.as_deref());
                HeadAction::Answer(reply)
            }
            HeadAction::Follow(edit) => {
                self.origins.extend(origin.map(|origin| (stream, origin)));
                HeadAction::Follow(edit)
            }
            HeadAction::Pass | HeadAction::Forget(_) => action,
        }
    }

    /// Follows a request that was admitted, unless a guard refuses it.
    fn follow(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        admitted: Admitted<'_>,
        edit: RequestEdit,
        now: Timestamp,
    ) -> HeadAction {
        let config = Rc::clone(&self.config);
        let product = Rc::clone(&admitted.product);
        let is_post = admitted.head.method == b"POST";
        if self.exchanges.len() >= EXCHANGES_MAX {
            host.count(Counter::ExchangesOverLimit, 1);
            return HeadAction::Forget(edit);
        }
        let id = self.next_id(host);
        let mut exchange = match exchange::start(&config, admitted, id.clone()) {
            Ok(exchange) => exchange,
            Err(found) => {
                return match self.unseen.count(host, found) {
                    Some(refusal) => HeadAction::Answer(refusal.reply(None)),
                    None => HeadAction::Forget(edit),
                };
            }
        };
        self.notes.request_head(&config, stream, headers);
        let mut set = self.prove(&mut *exchange, &id, headers);
        let mark_header = &config.already_metered.mark_header;
        set.extend((!mark_header.is_empty()).then(|| (mark_header.clone(), id.clone())));
        let metered_as = Some(mark(&id, &mut self.attempts, &mut |path| host.property(path)));
        let mut edit = RequestEdit { set, metered_as, ..edit };
        if exchange.wants_plain_frames() && headers.get(EXTENSIONS).is_some() {
            edit.remove.push(EXTENSIONS.to_owned());
        }
        let decides = !config.guards.is_empty() || !config.contracts.plans.is_empty();
        let edit = if !decides && self.pauses.is_empty() {
            edit
        } else {
            match self.guard_head(host, stream, &*exchange, is_post, now) {
                Ok((mark, is_held)) => RequestEdit { mark, is_held, ..edit },
                Err(refusal) => return self.refuse(host, stream, exchange, &refusal, now),
            }
        };
        // What the head starts is told before the head goes on: the call may cause a generation.
        exchange.begin();
        let observed = exchange.take_observed();
        self.record(host, stream, observed);
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

    /// Admits a request by its head. Returns it with the headers to take out, or what becomes of a
    /// request that the filter does not follow.
    fn admitted<'h>(
        &mut self,
        host: &mut impl Host,
        headers: Headers<'h>,
        is_whole: bool,
        now: Timestamp,
    ) -> Result<(Admitted<'h>, RequestEdit), HeadAction> {
        let config = Rc::clone(&self.config);
        let already_metered = &config.already_metered;
        let admission = admit(&config, headers, is_whole, &mut |path| host.property(path), now);
        let is_skipped = matches!(admission, Admission::Skip { .. });
        // What only proxies may say goes no further if a client said it.
        let mut remove =
            if is_skipped { Vec::new() } else { believed_headers(already_metered, headers) };
        let mut admitted = match admission {
            Admission::Pass | Admission::Unmatched => {
                let is_unmatched = matches!(admission, Admission::Unmatched);
                host.count(Counter::RequestsUnmatched, u64::from(is_unmatched));
                if remove.is_empty() {
                    return Err(HeadAction::Pass);
                }
                return Err(HeadAction::Forget(RequestEdit { remove, ..RequestEdit::default() }));
            }
            Admission::Skip { product, count } => {
                host.count(count, 1);
                remove.extend(stripped(&product, headers));
                return Err(HeadAction::Forget(RequestEdit { remove, ..RequestEdit::default() }));
            }
            Admission::Exempt(product) => {
                host.count(Counter::RequestsExempt, 1);
                remove.extend(stripped(&product, headers));
                return Err(HeadAction::Forget(RequestEdit { remove, ..RequestEdit::default() }));
            }
            Admission::Answer { reply, fact, count } => {
                host.count(count, 1);
                if count == Counter::IdentityUnusable {
                    host.count(Counter::RequestsRejected, 1);
                }
                if let Some(fact) = fact {
                    self.record_fact(host, &fact);
                }
                return Err(HeadAction::Answer(reply));
            }
            Admission::Follow(admitted) => *admitted,
        };
        if self.is_over_share(&admitted.head.identity.customer) {
            host.count(Counter::RequestsOverShare, 1);
            let ids = admitted.product.is_json_rpc().then_some(&[][..]);
            return Err(HeadAction::Answer(Refusal::over_share().reply(ids)));
        }
        if self.drain.is_some_and(|order| order.stops_intake) && admitted.head.names_no_session() {
            host.count(Counter::RequestsDraining, 1);
            let ids = admitted.product.is_json_rpc().then_some(&[][..]);
            return Err(HeadAction::Answer(Refusal::draining().reply(ids)));
        }
        admitted.head.body.share = self.decode_budget.share(&admitted.head.identity.customer);
        let mismatches = u64::from(admitted.is_credential_mismatch);
        host.count(Counter::CredentialMismatch, mismatches);
        remove.extend(stripped(&admitted.product, headers));
        Ok((admitted, RequestEdit { remove, ..RequestEdit::default() }))
    }

    /// Returns the headers with which a request carries the proof of its calls.
    fn prove(
        &mut self,
        exchange: &mut dyn Exchange,
        id: &str,
        headers: Headers<'_>,
    ) -> Vec<(String, String)> {
        if !exchange.wants_proof() {
            return Vec::new();
        }
        let proof = self.proofs.next(id, headers.get("x-request-id").unwrap_or_default());
        exchange.set_proof(proof);
        let carried = carried(headers, proof, exchange.product().trace == TraceRule::Own);
        carried.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The headers of a request that the product wants to be taken out.
fn stripped(product: &Product, headers: Headers<'_>) -> impl Iterator<Item = String> {
    let stripped = product.identity.strip_headers.iter();
    stripped.filter(move |name| headers.get(name).is_some()).cloned()
}

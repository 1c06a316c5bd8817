//! Where guards evaluate requests, and responses that stream.

use std::rc::Rc;

use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Action, Mode};
use crate::domain::call::UNNAMED_TOOL;
use crate::domain::level::Level;
use crate::exchange::Exchange;
use crate::exchange::kind::PolicyRequest;
use crate::fact::{Fact, Reservation};
use crate::guard::decision::{Call, Decision, GuardEvaluator};
use crate::guard::refusal::Refusal;
use crate::guard::stop::{CutPoint, StreamStop};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::meter::action::{BodyAction, HeadAction};
use crate::meter::{Held, Meter};
use crate::shared_data::shares::holder_of;
use crate::wire::doubt::Doubt;

impl Meter {
    /// Decides on a request by its head: on its mark, and whether to hold it until its message is
    /// known.
    pub(super) fn guard_head(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        exchange: &dyn Exchange,
        is_post: bool,
        now: Timestamp,
    ) -> Result<(Level, bool), Refusal> {
        let asked = exchange.policy_request();
        if asked.is_in_body {
            let config = Rc::clone(&self.config);
            let mut evaluator = GuardEvaluator { host, prefix: &self.prefix, config: &config, now };
            let decision = evaluator.decide_head(&asked.session, asked.may_body_name);
            let is_paused = self.paused(&asked.session, now).is_some();
            let is_held = (decision.needs_body || is_paused) && is_post;
            if is_held {
                let needs_message = decision.needs_message || is_paused;
                self.held.insert(stream, Held { bytes: 0, needs_message });
            }
            return Ok((decision.mark, is_held));
        }
        self.decide(host, stream, &asked, exchange.product(), now).map(|mark| (mark, false))
    }

    /// Decides on a held request, once its message has arrived, or as much of it as the filter
    /// waits for.
    pub(super) fn guard_message(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        is_end: bool,
        now: Timestamp,
    ) -> BodyAction {
        let held = self.held.remove(&stream);
        let Some(exchange) = self.exchanges.get(&stream) else { return BodyAction::Go(None) };
        if !is_end && held.is_some_and(|held| held.needs_message) {
            // What stands behind this part may be another call, or the name of the tool.
            return self.refuse_stream(host, stream, &Refusal::unreadable(Doubt::TooLarge), now);
        }
        let mut asked = exchange.policy_request();
        let product = Rc::clone(exchange.product());
        if asked.calls.is_empty() && (!is_end || exchange.doubt().is_some()) {
            // A message this long can only be a call, and one that is metered although it is not
            // certain may be one.
            asked.calls.push((String::new(), UNNAMED_TOOL.to_owned()));
        }
        match self.decide(host, stream, &asked, &product, now) {
            Ok(_) => BodyAction::Go(None),
            Err(refusal) => self.refuse_stream(host, stream, &refusal, now),
        }
    }

    /// Refuses a request that the filter does not understand for certain, if the configuration says
    /// so, or if it contains more than the filter follows.
    pub(super) fn refuse_unreadable(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        now: Timestamp,
    ) -> Option<BodyAction> {
        let exchange = self.exchanges.get(&stream)?;
        let doubt = exchange.doubt()?;
        let is_refused = doubt == Doubt::TooManyRequests
            || self.config.rejects_unreadable(exchange.product(), exchange.customer());
        if !is_refused {
            return None;
        }
        host.count(Counter::RequestsUnreadable, 1);
        self.held.remove(&stream);
        Some(self.refuse_stream(host, stream, &Refusal::unreadable(doubt), now))
    }

    /// Answers the request of a stream with a refusal, and ends its exchange.
    fn refuse_stream(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        refusal: &Refusal,
        now: Timestamp,
    ) -> BodyAction {
        let origin = self.origins.remove(&stream);
        let Some(exchange) = self.exchanges.remove(&stream) else { return BodyAction::Go(None) };
        match self.refuse(host, stream, exchange, refusal, now) {
            HeadAction::Answer(mut reply) => {
                self.config.cors.let_read(&mut reply, origin.as_deref());
                BodyAction::Answer(reply)
            }
            HeadAction::Pass | HeadAction::Follow(_) | HeadAction::Forget(_) => {
                BodyAction::Go(None)
            }
        }
    }

    /// Decides on a request. Returns its mark.
    fn decide(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        asked: &PolicyRequest,
        product: &Product,
        now: Timestamp,
    ) -> Result<Level, Refusal> {
        if !asked.calls.is_empty()
            && let Some(refusal) = self.paused(&asked.session, now)
        {
            host.count(Counter::RequestsPaused, 1);
            return Err(refusal);
        }
        let config = Rc::clone(&self.config);
        let calls: Vec<Call<'_>> = asked.calls.iter().map(|(id, tool)| Call { id, tool }).collect();
        let mut evaluator = GuardEvaluator { host, prefix: &self.prefix, config: &config, now };
        match evaluator.decide(&asked.session, &calls, product.call_timeout.millis()) {
            Decision::Refuse(mut refusal) => {
                let ask = refusal.prepaid.as_mut().and_then(|prepaid| prepaid.ask.take());
                if let Some(ask) = ask {
                    // The scopes of balances go by the session alone.
                    let ask = Reservation {
                        call_id: String::new(),
                        session: asked.session.clone(),
                        tool: String::new(),
                        amounts: vec![ask],
                        expires_at: now,
                    };
                    self.record_fact(host, &Fact::Reserved(Box::new(ask)));
                }
                Err(refusal)
            }
            Decision::Pass { mark, reservations } => {
                for taken in reservations {
                    // If the provider refuses a generation, only the end of the stream releases the
                    // reservation.
                    if product.llm.is_some() {
                        let holder = holder_of(&taken.session.identity.customer);
                        let call_id = taken.call_id.clone();
                        self.reserved.insert(stream, Fact::Released { call_id, holder });
                    }
                    self.record_fact(host, &Fact::Reserved(Box::new(taken)));
                }
                Ok(mark)
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        exchange: Box<dyn Exchange>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> HeadAction {
        let reply = refusal.reply(exchange.policy_request().ids.as_deref());
        let mut observed = exchange.refuse(refusal.status(), now);
        self.notes.add_to(&self.config, stream, &mut observed);
        self.record_refused(host, observed, now);
        HeadAction::Answer(reply)
    }

    /// Whether a guard may end the response to this request in the middle.
    pub(super) fn may_stop(&self, exchange: &dyn Exchange) -> bool {
        let config = &self.config;
        config.guards.iter().any(|guard| guard.does(Action::StopStreams))
            && config
                .guards_for(&exchange.product().id, exchange.customer())
                .any(|guard| guard.does(Action::StopStreams))
    }

    /// Watches a response that has begun, if it streams and a guard may end it.
    pub(super) fn follow_stream(&mut self, stream: u32) {
        let Some(exchange) = self.exchanges.get(&stream) else { return };
        if let Some(unit) = exchange.stream_unit()
            && self.may_stop(&**exchange)
        {
            self.stops.insert(stream, StreamStop::new(unit));
        }
    }

    /// Returns the bytes to send of the next chunk of a response, or `None` to send all of it.
    pub(super) fn stop_stream(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        chunk: &[u8],
        is_end: bool,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let exchange = self.exchanges.get_mut(&stream)?;
        let stop = self.stops.get_mut(&stream)?;
        if stop.looks(now) {
            let PolicyRequest { session, calls, ids, .. } = exchange.policy_request();
            let mut tools: Vec<&str> = calls.iter().map(|(_, tool)| tool.as_str()).collect();
            if tools.is_empty() && ids.is_none() {
                tools.push("");
            }
            let config = Rc::clone(&self.config);
            let mut evaluator = GuardEvaluator { host, prefix: &self.prefix, config: &config, now };
            match evaluator.stop(&session, &tools) {
                Some((refusal, Mode::Enforce)) => stop.end(refusal),
                Some((_, Mode::Observe)) if !stop.is_observed => {
                    stop.is_observed = true;
                    host.count(Counter::GuardWouldStop, 1);
                }
                Some(_) | None => {}
            }
        }
        match stop.pass(chunk, is_end, now, |refusal| exchange.stop(refusal, now)) {
            CutPoint::Nothing => None,
            CutPoint::Everything => Some(Vec::new()),
            CutPoint::Here(passed) => {
                host.count(Counter::GuardStopped, 1);
                let observed = exchange.take_observed();
                self.record(host, stream, observed);
                Some(passed)
            }
        }
    }

    /// Returns the streams that the proxy must close now, because the filter has ended their
    /// responses.
    pub fn closes(&mut self, now: Timestamp) -> Vec<u32> {
        let due =
            self.stops.iter_mut().filter_map(|(stream, stop)| stop.closes(now).then_some(*stream));
        let mut due: Vec<u32> = due.collect();
        due.sort_unstable();
        due
    }
}

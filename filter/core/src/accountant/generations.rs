//! Counts an ended generation once, prices it, and adds it to the session that caused it.

use std::rc::Rc;

use rust_decimal::Decimal;

use crate::accountant::Accountant;
use crate::accountant::attribution::Cause;
use crate::accountant::estimates::Estimate;
use crate::accountant::fold::Activity;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Config, CostSource, IncompleteUsage, REPORTED_CURRENCY};
use crate::domain::identity::{ANONYMOUS, Identity};
use crate::domain::session::SessionRef;
use crate::domain::usage::Completeness;
use crate::event::Event;
use crate::fact::generation::{Attribution, GenerationEnded};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::pricing::charge::{Cost, REPORTED, TokenCharge};
use crate::pricing::rate_card::{list_price, price};
use crate::pricing::{Priced, Unpriced};

impl Accountant {
    /// Bills an ended generation, unless it was billed before, or is an estimate of which the
    /// provider may still tell the truth.
    pub(super) fn fold_generation(
        &mut self,
        host: &mut impl Host,
        generation: Box<GenerationEnded>,
        cause: Option<Cause>,
        now: Timestamp,
    ) {
        let cause = self.owner(host, &generation, cause);
        let seen_as = generation.seen_as.filter(|_| !generation.is_unknown());
        let Some((link, created_at)) = seen_as else {
            self.touch_cause(host, &generation, &cause, now);
            return self.bill(host, &generation, &cause, now);
        };
        let estimate = if generation.is_estimated { None } else { self.estimates.take(&link) };
        let is_known = self.estimates.has(&link)
            || (estimate.is_none() && !self.seen_generations.is_new(&link, created_at, now));
        if is_known {
            host.count(Counter::GenerationsToldAgain, 1);
            return;
        }
        if let Some(estimate) = estimate {
            self.seen_generations.remember(link);
            let replaced = generation.instead_of(&estimate.generation);
            return self.bill(host, &replaced, &estimate.cause, now);
        }
        self.touch_cause(host, &generation, &cause, now);
        if generation.is_estimated {
            if let Some(first) = self.estimates.insert(link, generation, cause, now) {
                self.bill_estimate(host, &first, now);
            }
            return;
        }
        self.seen_generations.remember(link);
        self.bill(host, &generation, &cause, now);
    }

    /// Bills the estimates that have waited long enough.
    pub(super) fn bill_estimates(&mut self, host: &mut impl Host, now: Timestamp) {
        while let Some(estimate) = self.estimates.take_expired(now) {
            self.bill_estimate(host, &estimate, now);
        }
    }

    pub(super) fn bill_estimate(
        &mut self,
        host: &mut impl Host,
        estimate: &Estimate,
        now: Timestamp,
    ) {
        self.seen_generations.remember(estimate.link);
        self.bill(host, &estimate.generation, &estimate.cause, now);
    }

    /// Who bears the cost of a generation: the cause, if it is known, else who asked for it.
    fn owner(
        &self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        cause: Option<Cause>,
    ) -> Cause {
        let mut cause = cause.unwrap_or_else(|| {
            let call = generation.caused_by.clone();
            let attribution = if call.is_some() { Attribution::Result } else { Attribution::None };
            let session = generation.session.clone();
            Cause { attribution, session, is_customer_only: false, call }
        });
        if cause.is_customer_only {
            cause.session = self.session_of_customer(host, cause.session);
        }
        cause
    }

    fn touch_cause(
        &mut self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        cause: &Cause,
        now: Timestamp,
    ) {
        let slot = self.open(host, &cause.session, generation.started_at, now);
        let life = if cause.call.is_some() { Activity::Part } else { Activity::Call };
        self.touch(host, slot, life, generation.ended_at, now);
    }

    /// Bills a generation, and each further run that its response reports.
    fn bill(
        &mut self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        cause: &Cause,
        now: Timestamp,
    ) {
        self.bill_run(host, generation, None, cause, now);
        for (purpose, further) in generation.further_generations() {
            self.bill_run(host, &further, Some(purpose), cause, now);
        }
    }

    /// Prices a run of a model, and adds it to the session that bears its cost. `purpose` is what a
    /// further run was for.
    fn bill_run(
        &mut self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        purpose: Option<&str>,
        cause: &Cause,
        now: Timestamp,
    ) {
        let slot = self.open(host, &cause.session, generation.started_at, now);
        let config = Rc::clone(&self.config);
        let unknown = Rc::clone(&self.unknown_product);
        let rules = config.product(&generation.product_id).unwrap_or(&unknown);
        let charge = charge_generation(&config, rules, generation);
        let product_type = self.product(host, &cause.session).product_type;
        let tool = cause.call.as_ref().map(|(_, tool)| tool.as_str());
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let added = session.add_generation(generation, tool, &charge);
        host.count(Counter::ToolsOverLimit, u64::from(added.is_tool_over_limit));
        host.count(Counter::MoneyOverflow, u64::from(added.is_money_over_limit));
        host.count(Counter::GenerationsUnpriced, u64::from(charge.cost.is_err()));
        host.count(Counter::UsageUnknown, u64::from(generation.is_unknown()));
        host.count(Counter::UsageInconsistent, u64::from(charge.is_inconsistent));
        host.count(Counter::CostDisputed, u64::from(charge.is_disputed));
        let has_unpriced_units = charge.cost.as_ref().is_ok_and(|c| !c.unpriced_units.is_empty());
        host.count(Counter::UnitsUnpriced, u64::from(has_unpriced_units));
        let event = Event::TokenConsumption {
            session,
            product_id: &cause.session.product_id,
            product_type,
            generation,
            purpose,
            attribution: cause.attribution,
            call: cause.call.as_ref(),
            charge: &charge,
        };
        let json = self.meta.write(&event, generation.ended_at);
        self.push(host, json, now);
        self.guard_generation(
            host,
            generation,
            &cause.session,
            cause.call.as_ref(),
            &charge,
            rules,
            &rules.pricing.currency,
            now,
        );
    }

    /// The session of what belongs to a customer, and to none of the customer's agents and
    /// sessions for certain.
    fn session_of_customer(&self, host: &mut impl Host, session: SessionRef) -> SessionRef {
        let product = self.product(host, &session);
        let unknown = || ANONYMOUS.to_owned();
        let identity = Identity {
            team: unknown(),
            agent: unknown(),
            api_key: None,
            credential: None,
            ..session.identity
        };
        session_ref(&product, identity, SessionKey::Window)
    }
}

/// Returns the cost and the charge of a generation by the rules of its product.
fn charge_generation<'a>(
    config: &'a Config,
    rules: &'a Product,
    generation: &GenerationEnded,
) -> TokenCharge<'a> {
    let llm = rules.llm.clone().unwrap_or_default();
    let is_waived = llm.incomplete_usage == IncompleteUsage::Waive
        && generation.completeness != Completeness::Complete;
    let charged = |cost: Decimal| {
        let price = rules.pricing.tokens.charge(cost).ok_or(Unpriced::MoneyOverflow)?;
        Ok(if is_waived { Decimal::ZERO } else { price })
    };
    let cards = config.rate_cards_of(rules);
    let computed = price(&cards, generation);
    let reported = generation.reported_cost.filter(|_| rules.pricing.currency == REPORTED_CURRENCY);
    let is_disputed = match (&computed, reported) {
        // What a response reports is for all its runs.
        (Ok((priced, _)), Some(reported)) if generation.further.is_empty() => {
            let difference = priced.total.saturating_sub(reported).abs();
            let allowed = reported.checked_mul(llm.cost_difference_above.0);
            !reported.is_zero() && allowed.is_none_or(|allowed| difference > allowed)
        }
        _ => false,
    };
    let is_inconsistent = generation.is_inconsistent
        || computed.as_ref().is_ok_and(|(priced, _)| priced.is_inconsistent);
    let cost = match (llm.cost, reported) {
        (CostSource::Reported | CostSource::ReportedElseComputed, Some(reported)) => {
            Ok((of_reported(), reported))
        }
        (CostSource::Reported, None) => Err(Unpriced::NoReportedCost),
        _ => computed.map(|(priced, rate_card)| of_card(priced, rate_card)),
    };
    let cost = cost.and_then(|(cost, total)| charged(total).map(|price| (cost, total, price)));
    match cost {
        Err(reason) => {
            let at_least = list_price(&cards, generation, &reason);
            let price = charged(at_least).unwrap_or_default();
            let (cost, total) = (Err(reason), Decimal::ZERO);
            TokenCharge { cost, total, at_least, price, is_inconsistent, is_disputed }
        }
        Ok((cost, total, price)) => TokenCharge {
            cost: Ok(cost),
            total,
            at_least: total,
            price,
            is_inconsistent,
            is_disputed,
        },
    }
}

/// A cost that the provider reports.
fn of_reported<'a>() -> Cost<'a> {
    Cost {
        lines: Vec::new(),
        unit_lines: Vec::new(),
        unpriced_units: Vec::new(),
        rate_card: REPORTED,
    }
}

/// A cost that a card gives, and its total.
fn of_card(priced: Priced, rate_card: &str) -> (Cost<'_>, Decimal) {
    let Priced { lines, unit_lines, unpriced_units, total, .. } = priced;
    (Cost { lines, unit_lines, unpriced_units, rate_card }, total)
}

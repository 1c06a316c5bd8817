//! Counts an ended generation once, prices it, and adds it to the session that caused it.

use rust_decimal::Decimal;

use crate::accountant::Accountant;
use crate::accountant::attribution::Cause;
use crate::accountant::awaited::Awaited;
use crate::accountant::corrections::{BilledIn, Provisional};
use crate::accountant::estimates::Estimate;
use crate::accountant::fold::Activity;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::limits::{AWAITED_MAX, SEEN_AGE_MAX_S};
use crate::base::time::Timestamp;
use crate::config::product::{Product, ProductType};
use crate::config::{Config, CostSource, IncompleteUsage, REPORTED_CURRENCY};
use crate::domain::identity::{ANONYMOUS, Identity};
use crate::domain::ids::Link;
use crate::domain::session::SessionRef;
use crate::domain::usage::Completeness;
use crate::event::Event;
use crate::fact::generation::{Attribution, GenerationEnded, Told};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::pricing::charge::{Charged, Cost, REPORTED, TokenCharge};
use crate::pricing::rate_card::{list_price, price};
use crate::pricing::{Priced, RateCard, Unpriced};
use crate::session::{Added, Session};

impl Accountant {
    /// Bills an ended generation, unless as much was told of it before, or it is an estimate of which
    /// the provider may soon tell the truth.
    pub(super) fn fold_generation(
        &mut self,
        host: &mut impl Host,
        generation: Box<GenerationEnded>,
        cause: Option<Cause>,
        now: Timestamp,
    ) {
        let cause = self.owner(host, &generation, cause);
        let Some((link, created_at)) = generation.seen_as else {
            self.touch_cause(host, &generation, &cause, now);
            self.bill(host, &generation, &cause, now);
            return;
        };
        let told = generation.told();
        let earlier = self.estimates.told(&link).or_else(|| self.corrections.told(&link));
        let is_known = match earlier {
            Some(earlier) => told <= earlier,
            None => self.seen_generations.has(&link) || self.seen_results.has(&link),
        };
        let is_awaited = self.awaited.take(&link).is_some();
        if is_known {
            host.count(Counter::GenerationsToldAgain, 1);
        } else if earlier.is_none() && !is_awaited && is_old(created_at, now) {
            // What is remembered does not reach back so far: it may have been counted.
            host.count(Counter::GenerationsTooOld, 1);
        } else if let Some(estimate) = self.estimates.take(&link) {
            let replaced = generation.instead_of(&estimate.generation);
            self.bill_told(host, link, Box::new(replaced), estimate.cause, now);
        } else if let Some(billed) = self.corrections.take(&link) {
            self.correct(host, &billed, &generation, now);
        } else {
            self.touch_cause(host, &generation, &cause, now);
            if !generation.is_estimated {
                self.bill_told(host, link, generation, cause, now);
            } else if let Some(first) = self.estimates.insert(link, generation, cause, now) {
                self.bill_estimate(host, first, now);
            }
        }
    }

    /// Notes that a generation was asked for, which a later response tells.
    pub(super) fn await_generation(&mut self, awaited: Awaited) {
        let link = &awaited.link;
        let is_told = self.estimates.told(link).is_some() || self.corrections.told(link).is_some();
        if !is_told && !self.seen_generations.has(link) {
            self.awaited.insert(awaited, AWAITED_MAX);
        }
    }

    /// Bills an estimate that nothing has replaced.
    pub(super) fn bill_estimate(
        &mut self,
        host: &mut impl Host,
        estimate: Estimate,
        now: Timestamp,
    ) {
        let Estimate { link, generation, cause, .. } = estimate;
        self.bill_told(host, link, generation, cause, now);
    }

    /// Bills a generation that other responses may tell of too.
    fn bill_told(
        &mut self,
        host: &mut impl Host,
        link: Link,
        generation: Box<GenerationEnded>,
        cause: Cause,
        now: Timestamp,
    ) {
        let Some((session, charges)) = self.bill(host, &generation, &cause, now) else { return };
        let billed_at = now;
        let billed = Provisional { link, generation, cause, charges, session, billed_at };
        self.remember(host, billed);
    }

    /// Remembers a generation that was billed, so that it is not billed again, and that more may be
    /// told of it.
    fn remember(&mut self, host: &mut impl Host, billed: Provisional) {
        let told = billed.generation.told();
        // Of what told nothing no truth may get lost, even if it comes after this is forgotten.
        if billed.generation.is_of_batch {
            self.seen_results.remember(billed.link);
        } else if told != Told::Nothing {
            self.seen_generations.remember(billed.link);
        }
        if told != Told::Whole {
            let is_forgotten = self.corrections.remember(billed);
            host.count(Counter::CorrectionsForgotten, u64::from(is_forgotten));
        }
    }

    /// Lets what was billed for a generation give way to what a later response tells of it.
    fn correct(
        &mut self,
        host: &mut impl Host,
        billed: &Provisional,
        truth: &GenerationEnded,
        now: Timestamp,
    ) {
        let Provisional { link, generation, cause, session, billed_at, .. } = billed;
        if truth.tells_the_same(generation) {
            host.count(Counter::GenerationsToldAgain, 1);
            return;
        }
        host.count(Counter::GenerationsCorrected, 1);
        let mut replaced = truth.instead_of(generation);
        replaced.generation_id.clone_from(&truth.generation_id);
        let (config, rules) = &self.rules(host, &replaced.session, &replaced.product_id);
        let product_type = self.product(host, &cause.session).product_type;
        let tool = cause.call.as_ref().map(|(_, tool)| tool.as_str());
        // A session that is closed has told its totals. Its generations still tell of it.
        let slot = self.sessions.find(&cause.session, &session.currency);
        let is_same = |slot: &u32| self.sessions.get(*slot).is_some_and(|of| of.id == session.id);
        let slot = slot.filter(is_same);
        let (reference, currency) = (cause.session.clone(), session.currency.clone());
        let mut closed = Session::new(reference, currency, session.id, session.started_at);
        let own = [(None, (**generation).clone())];
        let further = generation.further_generations();
        let before = own.into_iter().chain(further.map(|(_, run)| (None::<&str>, run)));
        if let Some(open) = slot.and_then(|slot| self.sessions.get_mut(slot)) {
            for ((_, run), charged) in before.zip(&billed.charges) {
                open.take_generation(&run, tool, charged);
            }
        }
        let further = replaced.further_generations().map(|(purpose, run)| (Some(purpose), run));
        let mut charges = Vec::new();
        for (purpose, run) in [(None, replaced.clone())].into_iter().chain(further) {
            let supersedes = purpose.is_none().then_some(generation.generation_id.as_str());
            let run = Run { generation: &run, purpose, supersedes };
            let open = slot.and_then(|slot| self.sessions.get_mut(slot));
            let session = open.unwrap_or(&mut closed);
            let charge = charge_run(host, config, rules, &run, session, cause);
            let json = self
                .meta
                .write(&run.event(session, product_type, cause, &charge), run.generation.ended_at);
            self.push(host, json, now);
            charges.push(Charged::new(charge, run.generation.usage));
        }
        self.guards.reservations.end(&truth.generation_id);
        self.guard_correct(host, billed, &charges, rules, slot.is_some(), now);
        let generation = Box::new(replaced);
        let (link, cause, session) = (*link, cause.clone(), session.clone());
        let billed_at = *billed_at;
        self.remember(host, Provisional { link, generation, cause, charges, session, billed_at });
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

    /// Bills a generation, and each further run that its response reports. Returns the session in
    /// which it did so, and what it charged for each.
    fn bill(
        &mut self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        cause: &Cause,
        now: Timestamp,
    ) -> Option<(BilledIn, Vec<Charged>)> {
        let (session, own) = self.bill_run(host, generation, None, cause, now)?;
        let mut charges = vec![own];
        for (purpose, further) in generation.further_generations() {
            let billed = self.bill_run(host, &further, Some(purpose), cause, now);
            charges.extend(billed.map(|(_, charged)| charged));
        }
        Some((session, charges))
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
    ) -> Option<(BilledIn, Charged)> {
        let slot = self.open(host, &cause.session, generation.started_at, now);
        let (config, rules) = &self.rules(host, &generation.session, &generation.product_id);
        let product_type = self.product(host, &cause.session).product_type;
        let session = self.sessions.get_mut(slot)?;
        let run = Run { generation, purpose, supersedes: None };
        let charge = charge_run(host, config, rules, &run, session, cause);
        let json =
            self.meta.write(&run.event(session, product_type, cause, &charge), generation.ended_at);
        let billed_in = BilledIn::new(session);
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
        Some((billed_in, Charged::new(charge, generation.usage)))
    }

    /// The session of what belongs to a customer, and to none of the customer's agents and
    /// sessions for certain.
    fn session_of_customer(&self, host: &mut impl Host, session: SessionRef) -> SessionRef {
        let product = self.product(host, &session);
        let unknown = || ANONYMOUS.to_owned();
        let identity = Identity {
            team: unknown(),
            user: None,
            agent: unknown(),
            api_key: None,
            credential: None,
            ..session.identity
        };
        session_ref(&product, identity, SessionKey::Window)
    }
}

/// Whether a generation is older than what the accountant remembers. `created_at` is when the client
/// asked for it, in seconds since 1970, if that is known.
fn is_old(created_at: Option<u64>, now: Timestamp) -> bool {
    let oldest_s = (now.0 / 1000).saturating_sub(SEEN_AGE_MAX_S);
    created_at.is_some_and(|created_at| created_at < oldest_s)
}

/// One run of a model that is billed.
struct Run<'a> {
    generation: &'a GenerationEnded,
    /// What a further run was for.
    purpose: Option<&'a str>,
    /// The generation whose place it takes.
    supersedes: Option<&'a str>,
}

impl<'a> Run<'a> {
    fn event(
        &self,
        session: &'a Session,
        product_type: ProductType,
        cause: &'a Cause,
        charge: &'a TokenCharge<'a>,
    ) -> Event<'a> {
        Event::TokenConsumption {
            session,
            product_id: &cause.session.product_id,
            product_type,
            generation: self.generation,
            supersedes: self.supersedes,
            purpose: self.purpose,
            attribution: cause.attribution,
            call: cause.call.as_ref(),
            charge,
        }
    }
}

/// Prices a run, and adds it to the session that bears its cost.
fn charge_run<'a>(
    host: &mut impl Host,
    config: &'a Config,
    rules: &'a Product,
    run: &Run<'_>,
    session: &mut Session,
    cause: &Cause,
) -> TokenCharge<'a> {
    let charge = charge_generation(config, rules, run.generation);
    let tool = cause.call.as_ref().map(|(_, tool)| tool.as_str());
    let added = session.add_generation(run.generation, tool, &charge);
    count_run(host, run.generation, &charge, added);
    charge
}

/// Counts what is noteworthy about a run that was billed.
fn count_run(
    host: &mut impl Host,
    generation: &GenerationEnded,
    charge: &TokenCharge<'_>,
    added: Added,
) {
    host.count(Counter::ToolsOverLimit, u64::from(added.is_tool_over_limit));
    host.count(Counter::MoneyOverflow, u64::from(added.is_money_over_limit));
    host.count(Counter::GenerationsUnpriced, u64::from(charge.cost.is_err()));
    host.count(Counter::UsageUnknown, u64::from(generation.is_unknown()));
    host.count(Counter::UsageInconsistent, u64::from(charge.is_inconsistent));
    host.count(Counter::CostDisputed, u64::from(charge.is_disputed));
    let has_unpriced_units = charge.cost.as_ref().is_ok_and(|c| !c.unpriced_units.is_empty());
    host.count(Counter::UnitsUnpriced, u64::from(has_unpriced_units));
}

/// Returns the cost and the charge of a generation by the rules of its product.
pub(crate) fn charge_generation<'a>(
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
            allowed.is_none_or(|allowed| difference > allowed)
        }
        _ => false,
    };
    let is_inconsistent = generation.is_inconsistent
        || computed.as_ref().is_ok_and(|(priced, _)| priced.is_inconsistent);
    let cost = match (llm.cost, reported) {
        (CostSource::Reported | CostSource::ReportedElseComputed, Some(reported)) => {
            Ok((Cost { rate_card: REPORTED, ..Cost::default() }, reported))
        }
        (CostSource::Reported, None) => Err(Unpriced::NoReportedCost),
        _ => computed.map(|(priced, card)| of_card(priced, card, generation.ended_at)),
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

/// A cost that a card gives, and its total.
fn of_card(priced: Priced, card: &RateCard, at: Timestamp) -> (Cost<'_>, Decimal) {
    let Priced { lines, unit_lines, unpriced_units, total, .. } = priced;
    let (rate_card, rate_card_age) = (card.version(), Some(card.age(at)));
    (Cost { lines, unit_lines, unpriced_units, rate_card, rate_card_age }, total)
}

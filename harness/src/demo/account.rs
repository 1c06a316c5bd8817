//! Reads the demo's calls, tokens and money from the ledger, and compares them with what is
//! expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use agent_meter_collector::{Body, EventsQuery, Ledger, TokenTotals};
use rust_decimal::Decimal;

use crate::llm_server;

/// Calls by customer, tool and `execution_status`.
pub(super) type ByCustomer = BTreeMap<(String, String, String), u64>;

/// What the ledger has of the chosen sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) events: u64,
    pub(super) missing: u64,
    pub(super) calls: ByCustomer,
    pub(super) billable_calls: u64,
    pub(super) sessions_closed: u64,
    pub(super) revenue: Decimal,
    pub(super) generations: u64,
    pub(super) unpriced_generations: u64,
    pub(super) tokens: TokenTotals,
    pub(super) provider_cost: Decimal,
    /// By tool; `None` is the cost that belongs to no tool call.
    pub(super) cost_by_tool: BTreeMap<Option<String>, Decimal>,
    pub(super) by_model: BTreeMap<(String, String), ModelUse>,
}

/// The tokens and the cost of one model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModelUse {
    generations: u64,
    tokens: TokenTotals,
    cost: Decimal,
}

impl Account {
    /// Lists the differences between this account and the ledger's, one text each.
    pub(super) fn differences(&self, ledger: &Self, priced: bool) -> Vec<String> {
        let mut found = Vec::new();
        let keys: BTreeSet<_> = self.calls.keys().chain(ledger.calls.keys()).collect();
        for key @ (customer, tool, status) in keys {
            let (done, seen) = (count(&self.calls, key), count(&ledger.calls, key));
            if done != seen {
                found
                    .push(format!("{customer} {tool} {status}: {done} done, {seen} in the ledger"));
            }
        }
        let mut unequal = |what: &str, done: &dyn fmt::Display, seen: &dyn fmt::Display| {
            let (done, seen) = (done.to_string(), seen.to_string());
            if done != seen {
                found.push(format!("{what}: expected {done}, found {seen}"));
            }
        };
        unequal("sessions closed", &self.sessions_closed, &ledger.sessions_closed);
        unequal("missing events", &self.missing, &ledger.missing);
        if priced {
            unequal("billable calls", &self.billable_calls, &ledger.billable_calls);
            unequal("generations", &self.generations, &ledger.generations);
            unequal(
                "provider cost",
                &self.provider_cost.normalize(),
                &ledger.provider_cost.normalize(),
            );
            unequal("revenue", &self.revenue.normalize(), &ledger.revenue.normalize());
        }
        found
    }

    /// Lists the differences between the ledger's generations and those that the endpoint reported,
    /// at the endpoint's own rates.
    pub(super) fn differences_from(&self, llm: &llm_server::Account) -> Vec<String> {
        let mut found = Vec::new();
        let mut unequal = |what: String, own: String, ledger: String| {
            if own != ledger {
                found.push(format!("{what}: {own} by its account, {ledger} in the ledger"));
            }
        };
        let mut own = BTreeMap::new();
        for entry in &llm.entries {
            let tokens = TokenTotals::from_counts(|kind| match kind {
                "input" => entry.tokens.input,
                "output" => entry.tokens.output,
                "reasoning" => entry.tokens.reasoning,
                "cache_read" => entry.tokens.cache_read,
                "cache_write" => entry.tokens.cache_write,
                _ => 0,
            });
            let (generations, cost) = (entry.generations, entry.cost.unwrap_or_default());
            let key = (entry.provider.to_owned(), entry.model.clone());
            own.insert(key, ModelUse { generations, tokens, cost: cost.normalize() });
        }
        let none = ModelUse::default();
        let models: BTreeSet<_> = own.keys().chain(self.by_model.keys()).collect();
        for key @ (provider, model) in models {
            let [own, ledger] = [&own, &self.by_model].map(|uses| uses.get(key).unwrap_or(&none));
            unequal(format!("{provider} {model}"), format!("{own:?}"), format!("{ledger:?}"));
        }
        let by_tool = self.cost_by_tool.values().sum::<Decimal>().normalize();
        unequal("cost by tool".to_owned(), llm.cost().to_string(), by_tool.to_string());
        let without = self.cost_by_tool.get(&None).copied().unwrap_or_default();
        unequal("cost of no tool".to_owned(), "0".to_owned(), without.normalize().to_string());
        found
    }
}

fn count(calls: &ByCustomer, key: &(String, String, String)) -> u64 {
    calls.get(key).copied().unwrap_or_default()
}

/// Reads the account of all sources that are not in `earlier`.
pub(super) fn read_account(ledger: &Ledger, earlier: &BTreeSet<String>) -> anyhow::Result<Account> {
    let mut account = Account::default();
    for source in ledger.gaps()?.sources {
        if earlier.contains(&source.source) {
            continue;
        }
        account.events += u64::try_from(source.received)?;
        account.missing +=
            source.missing.iter().map(|gap| gap.to.abs_diff(gap.from) + 1).sum::<u64>();
        let query = EventsQuery { source: Some(source.source), ..EventsQuery::default() };
        ledger.each_event(query, |event| {
            account.add(&event.body);
            Ok(())
        })?;
    }
    Ok(account)
}

impl Account {
    fn add(&mut self, event: &Body) {
        match event {
            Body::Call(call) => {
                let customer = call.identity.customer.clone();
                let key = (customer, call.tool.clone(), call.status.to_owned());
                let quantity = call.quantity.unsigned_abs();
                *self.calls.entry(key).or_default() += quantity;
                self.billable_calls += if call.billable { quantity } else { 0 };
                self.revenue += call.price;
            }
            Body::Generation(generation) => {
                let (tokens, cost) = (generation.tokens.known(), generation.rate.cost());
                self.generations += 1;
                self.unpriced_generations += u64::from(cost.is_none());
                let cost = cost.unwrap_or_default();
                self.revenue += generation.price;
                self.provider_cost += cost;
                self.tokens.add(tokens);
                let tool = generation.call.as_ref().map(|(_, tool)| tool.clone());
                *self.cost_by_tool.entry(tool).or_default() += cost;
                let key = (generation.provider.clone(), generation.model.clone());
                let model = self.by_model.entry(key).or_default();
                model.generations += 1;
                model.tokens.add(tokens);
                model.cost = (model.cost + cost).normalize();
            }
            Body::Session(change) => self.sessions_closed += u64::from(change.closing.is_some()),
            Body::GuardTotals(_) | Body::LevelChange(_) => {}
            Body::Heartbeat(_)
            | Body::Correction(_)
            | Body::Billed(_)
            | Body::TopUp(_)
            | Body::Unknown => {}
        }
    }
}

/// Tokens and provider cost by tool and by model, as text.
pub(super) struct Costs<'a> {
    pub(super) account: &'a Account,
    pub(super) llm: &'a llm_server::Account,
}

impl fmt::Display for Costs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { account, llm } = self;
        let TokenTotals { input, output, .. } = account.tokens;
        let own = llm.cost();
        if account.generations == 0 {
            let count: u64 = llm.entries.iter().map(|entry| entry.generations).sum();
            return write!(
                f,
                "No generation is metered; the LLM endpoint's own account has {count} that cost {own} USD."
            );
        }
        writeln!(
            f,
            "{} generations, {} of them without a cost; {input} tokens in, {output} out",
            account.generations, account.unpriced_generations
        )?;
        for (tool, cost) in &account.cost_by_tool {
            let tool = tool.as_deref().unwrap_or("(not attributed to a tool)");
            writeln!(f, "  {tool}: {} USD", cost.normalize())?;
        }
        for ((provider, model), used) in &account.by_model {
            let TokenTotals { input, output, .. } = used.tokens;
            writeln!(
                f,
                "  {provider} {model}: {} generations, {input} tokens in, {output} out, {} USD",
                used.generations, used.cost
            )?;
        }
        let total = account.provider_cost.normalize();
        write!(f, "Provider cost {total} USD; the LLM endpoint's own account says {own} USD.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::sample;
    use crate::llm_server::{Entry, Tokens};

    fn generation(tool: Option<&str>, model: &str, cost: &str) -> Body {
        let call = tool.map(|tool| ("1", tool));
        sample::generation(call, model, Some(cost))
    }

    fn account(events: &[Body]) -> Account {
        let mut account = Account::default();
        for event in events {
            account.add(event);
        }
        account
    }

    #[test]
    fn the_ledger_is_compared_with_the_endpoint_in_tokens_and_cost() {
        let tokens = Tokens { input: 20, output: 10, reasoning: 4, cache_read: 8, cache_write: 0 };
        let entry = Entry {
            provider: "openai",
            model: "gpt-4o".to_owned(),
            generations: 2,
            unreported: 0,
            tokens,
            cost: Some(Decimal::new(30, 2)),
        };
        let llm = llm_server::Account { requests: 2, entries: vec![entry] };
        let one = generation(Some("summarise"), "gpt-4o", "0.1");
        let same = account(&[one.clone(), generation(Some("other"), "gpt-4o", "0.2")]);
        assert_eq!(same.differences_from(&llm), [""; 0]);
        let text = Costs { account: &same, llm: &llm }.to_string();
        assert!(
            text.ends_with("Provider cost 0.3 USD; the LLM endpoint's own account says 0.3 USD.")
        );
        for (second, differences) in [
            (generation(Some("other"), "gpt-4o", "0.3"), 2),
            (generation(Some("other"), "gpt-4o-mini", "0.2"), 2),
            (generation(None, "gpt-4o", "0.2"), 1),
            (Body::Unknown, 2),
        ] {
            let found = account(&[one.clone(), second]).differences_from(&llm);
            assert_eq!(found.len(), differences, "{found:?}");
        }
    }
}

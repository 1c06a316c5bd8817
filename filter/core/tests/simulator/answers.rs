//! Whether each answer counted once, whatever stream it came on, and however often: calls of a
//! session with one id are as often a success as they were answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::verdict::Events;
use crate::world::World;

/// A session and a JSON-RPC id.
type Group = (u64, u64);

/// What servers and clients know of answers.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Calls whose answer is a success.
    asked: HashMap<String, Group>,
    /// Those whose answer a VM was given, or may have been.
    came: BTreeSet<String>,
    /// Those whose answer a VM has seen for certain.
    has_come: BTreeSet<String>,
    /// Those that a new configuration has ended.
    cut_short: BTreeSet<String>,
    /// Whether the clock was set back: which of two facts was first, nobody can tell.
    pub(crate) is_clock_back: bool,
}

impl Answers {
    pub(crate) fn asked(&mut self, tool: &str, group: Group) {
        self.asked.insert(tool.to_owned(), group);
    }

    pub(crate) fn comes(&mut self, tools: &[String]) {
        self.came.extend(tools.iter().cloned());
    }

    pub(crate) fn has_come(&mut self, tools: &[String]) {
        self.has_come.extend(tools.iter().cloned());
    }

    pub(crate) fn cut_short(&mut self, tools: &[String]) {
        self.cut_short.extend(tools.iter().cloned());
    }

    fn by_group<'a>(&self, tools: impl Iterator<Item = &'a String>) -> BTreeMap<Group, u64> {
        let mut counts = BTreeMap::new();
        for group in tools.filter_map(|tool| self.asked.get(tool)) {
            *counts.entry(*group).or_default() += 1;
        }
        counts
    }

    /// Checks the successes against the answers; `maybe` are calls that were in the hands of a VM
    /// that died. `is_exact` says that every answer came in time. Returns how many calls of groups
    /// of several were a success.
    pub(crate) fn check(
        &self,
        world: &World,
        events: &Events,
        maybe: &BTreeSet<String>,
        is_exact: bool,
    ) -> Result<u64, String> {
        let calls = events.values().map(|event| &event["data"]);
        let calls = calls.chain(world.spilled_facts.iter().map(|fact| &fact["Call"]));
        let (mut statuses, mut succeeded) = (BTreeMap::new(), BTreeSet::new());
        for call in calls {
            let status = call["execution_status"].as_str().or(call["status"].as_str());
            let tool = call["tool_name"].as_str().or(call["tool"].as_str());
            if let (Some(status), Some(tool)) = (status, tool) {
                statuses.insert(tool, status);
                if status == "SUCCESS" {
                    succeeded.insert(tool.to_owned());
                }
            }
        }
        let asked = self.by_group(self.asked.keys());
        let succeeded = self.by_group(succeeded.iter());
        let most = self.by_group(self.came.iter());
        let is_certain = |tool: &&String| !maybe.contains(*tool) && !self.cut_short.contains(*tool);
        let uncertain = self.by_group(self.asked.keys().filter(|tool| !is_certain(tool)));
        let least = self.by_group(self.has_come.iter());
        let of = |counts: &BTreeMap<Group, u64>, group| counts.get(group).copied().unwrap_or(0);
        for group in asked.keys() {
            let (found, most) = (of(&succeeded, group), of(&most, group));
            if found > most && !self.is_clock_back {
                let tools = self.told(*group, &statuses);
                return Err(format!("{found} successes, but {most} answers: {tools}"));
            }
            let least = of(&least, group).saturating_sub(of(&uncertain, group));
            if found < least && is_exact {
                let tools = self.told(*group, &statuses);
                return Err(format!("{found} successes, but {least} answers came: {tools}"));
            }
        }
        let several = asked.iter().filter(|(_, calls)| **calls > 1);
        Ok(several.map(|(group, _)| of(&succeeded, group)).sum())
    }

    /// What is known of the calls of a group.
    fn told(&self, group: Group, statuses: &BTreeMap<&str, &str>) -> String {
        let tools = self.asked.iter().filter(|(_, of)| **of == group).map(|(tool, _)| tool);
        let told = tools.map(|tool| {
            let status = statuses.get(tool.as_str()).copied().unwrap_or("no event");
            let has_come = self.has_come.contains(tool);
            format!("{tool}: {status}, answered: {has_come}")
        });
        format!("{group:?} {:?}", told.collect::<Vec<_>>())
    }
}

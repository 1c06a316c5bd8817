//! Reports the starts of an exchange's calls, if generations may have to be attributed to them, and
//! tells their JSON-RPC ids.

use crate::base::hash::{hash, hex};
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Config, TraceRule};
use crate::domain::correlation::Correlation;
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::fact::Fact;
use crate::fact::call::CallStarted;
use crate::protocol::trace_context::add;
use crate::wire::json_rpc::Id;

/// The JSON-RPC id of a call as events tell it: a number as written, and of a text, which may say
/// something about somebody, a hash.
pub(super) fn rpc_id(id: &Id) -> Box<Correlation> {
    let rpc_id = if id.is_string {
        format!("sha256:{}", hex(&hash(&[&id.text])))
    } else {
        String::from_utf8_lossy(&id.text).into_owned()
    };
    Box::new(Correlation { rpc_id: Some(rpc_id), ..Correlation::default() })
}

/// What the starts of an exchange's calls have in common.
#[derive(Debug)]
pub(super) struct CallStarts {
    /// False if no product meters generations.
    is_on: bool,
    may_infer: bool,
    rule: TraceRule,
    proof: Option<TraceId>,
    traces: Vec<TraceId>,
}

impl CallStarts {
    /// For an exchange whose request's head names these traces.
    pub(super) fn new(config: &Config, product: &Product, traces: Vec<TraceId>) -> Self {
        let is_on = config.has_generations();
        let traces = if is_on { traces } else { Vec::new() };
        Self { is_on, may_infer: config.may_infer(), rule: product.trace, proof: None, traces }
    }

    /// For an exchange whose calls cause nothing but what it reports itself.
    pub(super) fn none() -> Self {
        let rule = TraceRule::Trust;
        Self { is_on: false, may_infer: false, rule, proof: None, traces: Vec::new() }
    }

    /// Whether the filter must put a call proof into the request.
    pub(super) fn wants_proof(&self) -> bool {
        self.is_on && self.rule != TraceRule::Trust
    }

    /// Takes the call proof that the request carries to the server.
    pub(super) fn set_proof(&mut self, proof: TraceId) {
        self.proof = Some(proof);
    }

    /// Reports that a call has started; `named` is the trace that its message names.
    pub(super) fn started(
        &self,
        call_id: &str,
        session: &SessionRef,
        tool: &str,
        named: Option<TraceId>,
        at: Timestamp,
    ) -> Option<Fact> {
        let mut traces = self.traces.clone();
        add(&mut traces, named.filter(|_| self.is_on));
        let mut proofs = Vec::from_iter(self.proof);
        if self.rule == TraceRule::Trust {
            proofs.append(&mut traces);
        }
        let can_be_cause = !proofs.is_empty() || !traces.is_empty() || self.may_infer;
        (self.is_on && can_be_cause).then(|| {
            Fact::CallStarted(CallStarted {
                call_id: call_id.to_owned(),
                session: session.clone(),
                tool: tool.to_owned(),
                proofs,
                traces,
                at,
            })
        })
    }
}

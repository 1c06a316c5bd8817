//! What is compared: the filter between a listener and its router.

use serde_json::{Value, json};

use super::servers::Told;

/// The filter between a listener and its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// No filter: all differences are differences to this variant.
    NoFilter,
    /// No filter, a second time: its differences are noise.
    NoFilterAgain,
    EmptyWasm,
    /// Asks the host for all that metering needs, and decides nothing.
    ReadingWasm,
    AgentMeter,
    /// agent-meter where no product matches the calls.
    Unmatched,
    /// Another module of agent-meter, such as the one of before a change; only if there is one.
    Beside,
    /// The filter with a margin guard and a budget, both within limits.
    Guarded,
    /// The same, and the guard reserves the cost of each call before it runs.
    Reserving,
    /// Envoy's own filter in C++; it reads only requests.
    NativeMcp,
    /// The same, and Envoy's `ai_protocol_manager`, which parses requests and responses.
    NativeMcpAndAi,
    Lua,
    /// Keeps whole exchanges and sends them in batches.
    BufferingWasm,
    /// A process of its own reads the exchanges, by gRPC.
    ExtProc,
}

impl Variant {
    /// Every variant, the reference first.
    pub(super) const ALL: [Self; 14] = [
        Self::NoFilter,
        Self::NoFilterAgain,
        Self::EmptyWasm,
        Self::ReadingWasm,
        Self::BufferingWasm,
        Self::AgentMeter,
        Self::Unmatched,
        Self::Beside,
        Self::Guarded,
        Self::Reserving,
        Self::NativeMcp,
        Self::NativeMcpAndAi,
        Self::Lua,
        Self::ExtProc,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoFilter => "no filter",
            Self::NoFilterAgain => "no filter again",
            Self::EmptyWasm => "empty Wasm filter",
            Self::ReadingWasm => "reading Wasm filter",
            Self::BufferingWasm => "buffering Wasm",
            Self::AgentMeter => "agent-meter",
            Self::Unmatched => "unmatched",
            Self::Beside => "agent-meter beside",
            Self::Guarded => "with guards",
            Self::Reserving => "with reservation",
            Self::NativeMcp => "native mcp filter",
            Self::NativeMcpAndAi => "native mcp + ai",
            Self::Lua => "Lua filter",
            Self::ExtProc => "ext_proc",
        }
    }

    /// What a collector is told of each of its calls; `None` if nothing.
    pub(super) fn tells(self) -> Option<Told> {
        match self {
            Self::AgentMeter | Self::Beside | Self::Guarded | Self::Reserving => Some(Told::Call),
            Self::BufferingWasm => Some(Told::Exchange),
            Self::NoFilter | Self::NoFilterAgain | Self::EmptyWasm | Self::ReadingWasm => None,
            Self::Unmatched | Self::NativeMcp | Self::NativeMcpAndAi => None,
            Self::Lua | Self::ExtProc => None,
        }
    }

    /// The guards of a metered listener: far from every level, so that they change nothing for a
    /// call.
    pub(super) fn guards(self) -> Option<Value> {
        let actions = json!({
            "level_1": { "threshold": "50%" },
            "level_2": { "threshold": "30%", "throttle_rate": "20req/sec" },
            "level_3": { "threshold": "10%", "action": "block_request" },
        });
        let mut margin = json!({ "id": "margin", "revenue": "contracted", "actions": actions });
        match self {
            Self::Guarded => {}
            // Reserves the estimate and not the last cost, which is zero here.
            Self::Reserving => {
                margin["reserve"] = json!({ "estimate": "0.01", "last_cost": false })
            }
            _ => return None,
        }
        let budget =
            json!({ "id": "budget", "budget": { "calls": 1_000_000_000 }, "actions": actions });
        Some(json!([margin, budget]))
    }

    /// The name of a second listener with the same filter, which logs what the filter has found and
    /// is not measured. `None` if there is none.
    pub(super) fn proof(self) -> Option<String> {
        match self {
            Self::NativeMcp | Self::NativeMcpAndAi | Self::Lua => {
                Some(format!("{}, logged", self.name()))
            }
            Self::NoFilter | Self::NoFilterAgain | Self::EmptyWasm | Self::ReadingWasm => None,
            Self::AgentMeter | Self::Unmatched | Self::Beside | Self::Guarded => None,
            Self::Reserving | Self::BufferingWasm | Self::ExtProc => None,
        }
    }
}

//! The filter on a listener of its own by which an operator controls those that meter: a `POST` drains
//! them, and is answered when that is done or its time is up; others pause calls and resume them.

use serde_json::json;

use crate::base::text::Duration;
use crate::base::time::{Millis, Timestamp};
use crate::config::control::ControlConfig;
use crate::host::Host;
pub use crate::meter::control_action::ControlAction;
use crate::meter::control_action::{answer, not_post, reply};
use crate::meter::{LAYOUT, pauses};
use crate::shared_data::drain::{DrainOrder, DrainProgress};
use crate::wire::http::{Headers, LocalReply};

/// Orders whose answer is awaited at once.
const WAITING_MAX: usize = 64;
/// Without `deadline`: a little less than the 30 s after which Kubernetes kills a pod.
const DEADLINE_MS: u64 = 25_000;
const DEADLINE_MS_MAX: u64 = 3_600_000;

/// The state of this filter in one VM.
#[derive(Debug)]
pub struct Control {
    config: ControlConfig,
    prefix: String,
    /// Orders whose answer is awaited, by stream.
    waiting: Vec<(u32, DrainOrder)>,
}

impl Control {
    /// For filters with this name.
    pub fn new(config: ControlConfig, plugin: &str) -> Self {
        Self { config, prefix: format!("{LAYOUT}.{plugin}."), waiting: Vec::new() }
    }

    /// Takes a request; `id` tells its order from others.
    pub fn request(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        headers: Headers<'_>,
        id: u64,
        now: Timestamp,
    ) -> ControlAction {
        let target = headers.get(":path").unwrap_or_default();
        let target = String::from_utf8_lossy(target);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let method = headers.get(":method").unwrap_or_default();
        let ControlConfig { drain_path, pause_path, resume_path } = &self.config;
        if path == pause_path || path == resume_path {
            return pauses::order(host, &self.prefix, (method, query, path == pause_path), now);
        }
        if path != drain_path {
            let error = format!("expected {drain_path}, {pause_path} or {resume_path}");
            return answer(404, &json!({ "error": error }));
        }
        if method != b"POST" {
            return not_post();
        }
        let order = match read_order(query, id, now) {
            Ok(order) => order,
            Err(error) => return answer(400, &json!({ "error": error })),
        };
        if self.waiting.len() >= WAITING_MAX {
            return answer(429, &json!({ "error": "too many orders wait for their answers" }));
        }
        order.give(host, &self.prefix);
        self.waiting.push((stream, order));
        ControlAction::Wait
    }

    /// The answers to requests that need not wait any longer, by stream.
    pub fn tick(&mut self, host: &mut impl Host, now: Timestamp) -> Vec<(u32, LocalReply)> {
        let prefix = &self.prefix;
        let mut answers = Vec::new();
        self.waiting.retain(|(stream, order)| {
            let progress = DrainProgress::read(host, prefix, order.id);
            let is_done = progress.is_some_and(|progress| progress.is_done);
            // If the clock was set back, nobody must wait for ever.
            if !is_done && now < order.deadline && now >= order.at {
                return true;
            }
            let waited_ms = now.saturating_since(order.at).0;
            let told = |state: &str| match progress {
                Some(DrainProgress { open_sessions, events_waiting, .. }) => json!({
                    "state": state, "open_sessions": open_sessions,
                    "events_waiting": events_waiting, "waited_ms": waited_ms,
                }),
                None => json!({ "state": "unanswered", "waited_ms": waited_ms }),
            };
            let answer =
                if is_done { reply(200, &told("drained")) } else { reply(504, &told("draining")) };
            answers.push((*stream, answer));
            false
        });
        answers
    }

    /// Forgets a stream that is over.
    pub fn stream_end(&mut self, stream: u32) {
        self.waiting.retain(|(waiting, _)| *waiting != stream);
    }
}

/// Reads the parameters of an order.
fn read_order(query: &str, id: u64, at: Timestamp) -> Result<DrainOrder, String> {
    let mut wait = Millis(DEADLINE_MS);
    let (mut closes_sessions, mut stops_intake) = (true, false);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("deadline", text) => {
                let duration = Duration::parse(text).map(Duration::millis);
                wait = duration.filter(|wait| (1..=DEADLINE_MS_MAX).contains(&wait.0)).ok_or_else(
                    || {
                        format!(
                            "deadline: expected a duration such as 25s, at most 1h, found {text:?}"
                        )
                    },
                )?;
            }
            ("sessions", "close") => closes_sessions = true,
            ("sessions", "keep") => closes_sessions = false,
            ("sessions", text) => {
                return Err(format!("sessions: expected close or keep, found {text:?}"));
            }
            ("intake", "stop") => stops_intake = true,
            ("intake", "go") => stops_intake = false,
            ("intake", text) => {
                return Err(format!("intake: expected stop or go, found {text:?}"));
            }
            (name, _) => {
                return Err(format!("{name}: unknown, expected deadline, sessions or intake"));
            }
        }
    }
    Ok(DrainOrder { id, at, deadline: at.plus(wait), closes_sessions, stops_intake })
}

//! What clients and servers do on one stream, step by step: calls, batches, generations, answers on other streams, and
//! the ends of sessions.

use std::rc::Rc;

use agent_meter_core::domain::level::Level;
use agent_meter_core::exchange::kind::StreamEnd;

use crate::schedule::Envoy;

/// A stream of a client: one call or a batch of them, a generation, or a `DELETE`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// The calls, or the generation, that have not come to their end.
    pub(crate) calls: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// The level of the customer when its head came.
    pub(crate) level: Level,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Head {
        method: &'static str,
        path: &'static str,
        session: u64,
        /// A number that stands for a trace.
        trace: u32,
    },
    Request(Vec<u8>, bool),
    ResponseHead {
        is_events: bool,
        http_status: u16,
    },
    /// Bytes of the response, and the calls that they complete.
    Response(Vec<u8>, Vec<String>),
    End(StreamEnd),
}

impl Envoy {
    /// A stream of any kind.
    pub(crate) fn new_stream(self: &Rc<Self>) -> Stream {
        let id = self.next_stream.get();
        self.next_stream.set(id + 1);
        let session = self.roll(9);
        if self.chance(25) {
            return self.generation(id);
        }
        if self.chance(6) {
            let http_status = if self.chance(80) { 200 } else { 405 };
            let steps = vec![
                Step::Head { method: "DELETE", path: "/mcp", session, trace: id },
                Step::Request(Vec::new(), true),
                Step::ResponseHead { is_events: false, http_status },
                Step::End(StreamEnd::Complete),
            ];
            return Stream { id, calls: Vec::new(), steps, level: Level::None };
        }
        // An answer whose own stream was cut comes on another, maybe more than once, maybe before the cut.
        let elsewhere = self.elsewhere.borrow().last().cloned();
        if let Some((session, event)) = elsewhere
            && self.chance(40)
        {
            if self.chance(70) {
                self.elsewhere.borrow_mut().pop();
            }
            let steps = vec![
                Step::Head { method: "GET", path: "/mcp", session, trace: id },
                Step::Request(Vec::new(), true),
                Step::ResponseHead { is_events: true, http_status: 200 },
                Step::Response(event.into_bytes(), Vec::new()),
                Step::End(StreamEnd::Aborted),
            ];
            return Stream { id, calls: Vec::new(), steps, level: Level::None };
        }
        let calls: Vec<String> = (0..if self.chance(85) { 1 } else { 2 + self.roll(3) })
            .map(|_| {
                let number = self.next_call.get();
                self.next_call.set(number + 1);
                format!("tool-{number}")
            })
            .collect();
        let steps = self.call_steps(id, session, &calls);
        self.traces.borrow_mut().push((id, calls.clone()));
        Stream { id, calls, steps, level: Level::None }
    }

    /// A generation, which a call of these has asked for, or nothing that is known.
    fn generation(self: &Rc<Self>, id: u32) -> Stream {
        let number = self.next_call.get();
        self.next_call.set(number + 1);
        let name = format!("gen-{number}");
        // One of the last few calls; it may not have begun, or have ended.
        let recent = self.traces.borrow().len().min(4) as u64;
        let cause = (recent > 0 && self.chance(85)).then(|| {
            let traces = self.traces.borrow();
            traces[traces.len() - 1 - self.roll(recent) as usize].clone()
        });
        let (trace, calls) = cause.unwrap_or((id, Vec::new()));
        self.truth.borrow_mut().caused(&name, &calls);
        let usage = format!(r#"{{"prompt_tokens":{number},"completion_tokens":2}}"#);
        let answer = format!(r#"{{"object":"chat.completion","choices":[],"usage":{usage}}}"#);
        let cut = self.roll(answer.len() as u64) as usize;
        let mut steps = vec![
            Step::Head { method: "POST", path: "/v1/chat/completions", session: 0, trace },
            Step::Request(format!(r#"{{"model":"{name}"}}"#).into_bytes(), true),
            Step::ResponseHead { is_events: false, http_status: 200 },
            Step::Response(answer.as_bytes()[..cut].to_vec(), Vec::new()),
        ];
        if self.chance(90) {
            steps.push(Step::Response(answer.as_bytes()[cut..].to_vec(), Vec::new()));
            steps.push(Step::End(StreamEnd::Complete));
        } else {
            steps.push(Step::End(StreamEnd::Aborted));
        }
        Stream { id, calls: vec![name], steps, level: Level::None }
    }

    fn call_steps(self: &Rc<Self>, trace: u32, session: u64, calls: &[String]) -> Vec<Step> {
        let id_of = |tool: &String| tool.trim_start_matches("tool-").to_owned();
        let requests: Vec<String> = calls
            .iter()
            .map(|tool| {
                let id = id_of(tool);
                format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
            })
            .collect();
        let body = if let [one] = requests.as_slice() {
            one.clone()
        } else {
            format!("[{}]", requests.join(","))
        };
        let cut = self.roll(body.len() as u64) as usize;
        let is_events = self.chance(50);
        let http_status = if self.chance(95) { 200 } else { 503 };
        let mut steps = vec![
            Step::Head { method: "POST", path: "/mcp", session, trace },
            Step::Request(body.as_bytes()[..cut].to_vec(), false),
            Step::Request(body.as_bytes()[cut..].to_vec(), true),
            Step::ResponseHead { is_events, http_status },
        ];
        if http_status == 200 {
            let answers: Vec<String> = calls
                .iter()
                .map(id_of)
                .map(|id| format!(r#"{{"id":{id},"result":{{"isError":{}}}}}"#, self.chance(10)))
                .collect();
            let is_cut = self.chance(20);
            if is_events {
                let mut is_gone = false;
                for (answer, call) in answers.iter().zip(calls) {
                    is_gone |= is_cut && self.chance(50);
                    if is_gone {
                        let event = format!("data: {answer}\n\n");
                        self.elsewhere.borrow_mut().push((session, event));
                        continue;
                    }
                    let event = format!("data: {answer}\n\n");
                    let cut = 1 + self.roll(event.len() as u64 - 1) as usize;
                    steps.push(Step::Response(event.as_bytes()[..cut].to_vec(), Vec::new()));
                    steps
                        .push(Step::Response(event.as_bytes()[cut..].to_vec(), vec![call.clone()]));
                }
            } else if !is_cut {
                let body = format!("[{}]", answers.join(","));
                steps.push(Step::Response(body.into_bytes(), calls.to_vec()));
            }
        }
        let end = if self.chance(90) { StreamEnd::Complete } else { StreamEnd::Aborted };
        steps.push(Step::End(end));
        steps
    }
}

//! What clients and servers do on one stream, step by step: calls, batches, generations, answers on other streams, and
//! the ends of sessions.

use std::rc::Rc;

use agent_meter_core::domain::level::Level;
use agent_meter_core::exchange::kind::StreamEnd;

use crate::play::{OwnStream, Play};
use crate::schedule::Envoy;

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
/// The id of every call of some clients.
const CONSTANT_ID: u64 = 1_000_000;

/// A stream of a client: one call or a batch of them, a generation, or a `DELETE`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// The calls, or the generation, that have not come to their end.
    pub(crate) calls: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// The level of the customer when its head came, and how many statuses had been written.
    pub(crate) level: (Level, usize),
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
        media_type: &'static str,
        http_status: u16,
    },
    /// Bytes of the response, and the calls that they complete.
    Response(Vec<u8>, Vec<String>),
    /// The server has the request of this call of a session: its answer may come on another stream,
    /// in this event.
    Elsewhere(Late),
    /// The answer of a call comes on this stream, which is not the call's own.
    Answer(Late),
    End(StreamEnd),
}

/// An answer that comes on another stream than its call's own.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    session: u64,
    pub(crate) tool: String,
    pub(crate) event: String,
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
        if self.chance(6) && !self.is_steady {
            let http_status = if self.chance(80) { 200 } else { 405 };
            let steps = vec![
                Step::Head { method: "DELETE", path: "/mcp", session, trace: id },
                Step::Request(Vec::new(), true),
                Step::ResponseHead { media_type: JSON, http_status },
                Step::End(StreamEnd::Complete),
            ];
            return Stream { id, calls: Vec::new(), steps, level: Default::default() };
        }
        // An answer may come on another stream, maybe more than once, maybe before the own one ends.
        let late = self.elsewhere.borrow().last().cloned();
        if let Some(late) = late
            && self.chance(40)
        {
            if self.chance(70) {
                self.elsewhere.borrow_mut().pop();
            }
            let steps = vec![
                Step::Head { method: "GET", path: "/mcp", session: late.session, trace: id },
                Step::Request(Vec::new(), true),
                Step::ResponseHead { media_type: EVENTS, http_status: 200 },
                Step::Answer(late),
                Step::End(StreamEnd::Aborted),
            ];
            return Stream { id, calls: Vec::new(), steps, level: Default::default() };
        }
        let calls: Vec<String> = (0..if self.chance(85) { 1 } else { 2 + self.roll(3) })
            .map(|_| {
                let number = self.next_call.get();
                self.next_call.set(number + 1);
                format!("tool-{number}")
            })
            .collect();
        let steps = match calls.as_slice() {
            [call] => self.call_steps(id, session, call),
            _ => self.batch_steps(id, session, &calls),
        };
        self.traces.borrow_mut().push((id, calls.clone()));
        Stream { id, calls, steps, level: Default::default() }
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
            Step::ResponseHead { media_type: JSON, http_status: 200 },
            Step::Response(answer.as_bytes()[..cut].to_vec(), Vec::new()),
        ];
        if self.chance(90) {
            steps.push(Step::Response(answer.as_bytes()[cut..].to_vec(), Vec::new()));
            steps.push(Step::End(StreamEnd::Complete));
        } else {
            steps.push(Step::End(StreamEnd::Aborted));
        }
        Stream { id, calls: vec![name], steps, level: Default::default() }
    }

    /// One call, and its answer wherever it comes.
    fn call_steps(self: &Rc<Self>, trace: u32, session: u64, tool: &str) -> Vec<Step> {
        let has_own_id = self.chance(60);
        let id = if has_own_id { id_of(tool) } else { CONSTANT_ID };
        let play = {
            let dice = &mut self.world.borrow_mut().dice;
            Play::new(dice, session, tool.to_owned(), id, has_own_id)
        };
        self.truth.borrow_mut().answers.asked(tool, (session, id));
        let (is_found, (status, media_type, body)) = (self.chance(95), play.response());
        let http_status = if is_found { status } else { 503 };
        let mut steps = self.request_steps(trace, session, &play.request());
        let head = Step::ResponseHead { media_type, http_status };
        let late = play.elsewhere.clone().filter(|_| is_found);
        let late = late.map(|event| Late { session: play.session, tool: play.tool.clone(), event });
        if is_found && play.is_answered_on_own() {
            let cut = 1 + self.roll(body.len() as u64 - 1) as usize;
            let (first, rest) = body.as_bytes().split_at(cut);
            steps.push(head);
            steps.push(Step::Response(first.to_vec(), Vec::new()));
            steps.push(Step::Response(rest.to_vec(), vec![play.tool.clone()]));
            // It is sent again only once it was sent.
            steps.extend(late.map(Step::Elsewhere));
        } else {
            steps.extend(late.map(Step::Elsewhere));
            steps.push(head);
        }
        let is_cut = play.own == OwnStream::Cut && self.chance(50);
        steps.push(Step::End(if is_cut { StreamEnd::Aborted } else { StreamEnd::Complete }));
        steps
    }

    fn request_steps(self: &Rc<Self>, trace: u32, session: u64, body: &str) -> Vec<Step> {
        let cut = self.roll(body.len() as u64) as usize;
        vec![
            Step::Head { method: "POST", path: "/mcp", session, trace },
            Step::Request(body.as_bytes()[..cut].to_vec(), false),
            Step::Request(body.as_bytes()[cut..].to_vec(), true),
        ]
    }

    /// Several calls in one request. Answers that are cut off come on other streams.
    fn batch_steps(self: &Rc<Self>, trace: u32, session: u64, calls: &[String]) -> Vec<Step> {
        let request = |tool: &String| {
            let id = id_of(tool);
            format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
        };
        let body = format!("[{}]", calls.iter().map(request).collect::<Vec<_>>().join(","));
        let mut steps = self.request_steps(trace, session, &body);
        let media_type = if self.chance(50) { EVENTS } else { JSON };
        let is_found = self.chance(95);
        steps
            .push(Step::ResponseHead { media_type, http_status: if is_found { 200 } else { 503 } });
        let answer = |tool: &String| {
            let (id, is_error) = (id_of(tool), self.chance(10));
            if !is_error {
                self.truth.borrow_mut().answers.asked(tool, (session, id));
            }
            format!(r#"{{"id":{id},"result":{{"content":[],"isError":{is_error}}}}}"#)
        };
        let answers: Vec<String> = calls.iter().map(answer).collect();
        let is_cut = self.chance(20);
        let mut is_gone = false;
        match media_type {
            _ if !is_found => {}
            EVENTS => {
                for (answer, tool) in answers.iter().zip(calls) {
                    is_gone |= is_cut && self.chance(50);
                    let event = format!("data: {answer}\n\n");
                    if is_gone {
                        let late = Late { session, tool: tool.clone(), event };
                        steps.push(Step::Elsewhere(late));
                        continue;
                    }
                    let cut = 1 + self.roll(event.len() as u64 - 1) as usize;
                    let (first, rest) = event.as_bytes().split_at(cut);
                    steps.push(Step::Response(first.to_vec(), Vec::new()));
                    steps.push(Step::Response(rest.to_vec(), vec![tool.clone()]));
                }
            }
            _ if is_cut => {}
            _ => {
                let body = format!("[{}]", answers.join(","));
                steps.push(Step::Response(body.into_bytes(), calls.to_vec()));
            }
        }
        let end = if self.chance(90) { StreamEnd::Complete } else { StreamEnd::Aborted };
        steps.push(Step::End(end));
        steps
    }
}

fn id_of(tool: &str) -> u64 {
    tool.trim_start_matches("tool-").parse().unwrap()
}

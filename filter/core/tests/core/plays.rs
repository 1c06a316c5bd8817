//! The calls of `play.rs` over several streams and two workers, in an order that the seed decides.

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::Meter;
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

use crate::accountant::kinds;
use crate::dice::Dice;
use crate::host::{Envoy, Memory, meter};
use crate::joins::CONFIG;
use crate::plan::{check, plan};
use crate::play::{OwnStream, Play};
use crate::support::test;

const PLAYS: u64 = 1000;

struct Stage {
    envoy: Envoy,
    other: Meter,
    dice: Dice,
    next: u32,
    /// Answers that come on another stream later: the session, and the event.
    late: Vec<(u64, String)>,
    told: Vec<Value>,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut envoy = Envoy::new(CONFIG);
        let other = meter(&mut envoy.host, CONFIG);
        Self { envoy, other, dice: Dice(seed), next: 100, late: Vec::new(), told: Vec::new() }
    }

    /// Sends a request to one of the workers. Returns its stream, which is even on the second.
    fn request(&mut self, session: u64, method: &str, body: &str) -> u32 {
        self.next += 1 + u32::try_from(self.dice.below(2)).unwrap();
        let stream = self.next;
        let mut head = vec![
            (":method".to_owned(), method.as_bytes().to_vec()),
            (":path".to_owned(), b"/mcp".to_vec()),
            ("mcp-session-id".to_owned(), format!("s{session}").into_bytes()),
        ];
        if method == "GET" && self.dice.below(2) == 0 {
            head.push(("last-event-id".to_owned(), b"e".to_vec()));
        }
        let (worker, host, now) = self.parts(stream);
        let _ = worker.request_head(host, stream, Headers(&head), now);
        let _ = worker.request_body(host, stream, body.as_bytes(), true, now);
        stream
    }

    fn parts(&mut self, stream: u32) -> (&mut Meter, &mut Memory, Timestamp) {
        let Envoy { host, worker, now, .. } = &mut self.envoy;
        (if stream.is_multiple_of(2) { &mut self.other } else { worker }, host, *now)
    }

    fn respond(&mut self, stream: u32, status: &str, media: &str, body: &str, end: StreamEnd) {
        let cut = usize::try_from(self.dice.below(body.len() as u64 + 1)).unwrap();
        let head = [(":status", status), ("content-type", media)]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let (worker, host, now) = self.parts(stream);
        let _ = worker.response_head(stream, Headers(&head));
        worker.response_body(host, stream, &body.as_bytes()[..cut], false, now);
        worker.response_body(host, stream, &body.as_bytes()[cut..], false, now);
        worker.stream_end(host, stream, end, now);
    }

    /// Lets time pass, in which the workers and the accountant may tick.
    fn wait(&mut self) {
        self.envoy.now.0 += 1 + self.dice.below(50);
        if self.dice.below(3) == 0 {
            let now = self.envoy.now;
            assert!(self.other.tick(&mut self.envoy.host, now).is_empty());
            let sent = self.envoy.tick(0);
            self.told.extend(self.envoy.take(sent));
        }
    }

    /// One of the late answers comes, on a stream of its session; perhaps it will come again.
    fn late_answer(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice.below(self.late.len() as u64)).unwrap();
        let (session, event) = self.late[at].clone();
        if self.dice.below(4) > 0 {
            self.late.remove(at);
        }
        let stream = self.request(session, "GET", "");
        self.respond(stream, "200", "text/event-stream", &event, StreamEnd::Aborted);
    }

    fn play(&mut self, play: &Play) {
        let stream = self.request(play.session, "POST", &play.request());
        self.wait();
        let (status, media, body) = play.response();
        let end = match play.own {
            OwnStream::Cut => StreamEnd::Aborted,
            _ => StreamEnd::Complete,
        };
        self.respond(stream, &status.to_string(), media, &body, end);
        if let Some(event) = &play.elsewhere {
            self.late.push((play.session, event.clone()));
        }
    }
}

fn run(seed: u64) -> Result<(), String> {
    let mut stage = Stage::new(seed);
    let plays = plan(seed, &mut stage.dice);
    for play in &plays {
        stage.play(play);
        for _ in 0..stage.dice.below(3) {
            stage.wait();
            stage.late_answer();
        }
    }
    while !stage.late.is_empty() {
        stage.wait();
        stage.late_answer();
    }
    let rest = stage.envoy.deliver(600_000);
    stage.told.extend(rest);
    let calls = kinds(&stage.told, "tool_invocation");
    if calls.len() != plays.len() {
        return Err(format!("{} calls, but {} events", plays.len(), calls.len()));
    }
    let text = |call: &Value, name: &str| call[name].as_str().unwrap_or_default().to_owned();
    let status = |call| (text(call, "tool_name"), text(call, "execution_status"));
    check(&plays, &calls.iter().map(status).collect()).map_err(|why| format!("{why} in {plays:#?}"))
}

#[test]
fn each_answer_counts_once_whatever_stream_it_comes_on() {
    for seed in 0..PLAYS {
        run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

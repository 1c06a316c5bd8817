//! Sessions that a seed makes up, with ids that are the same for each call or rise: answers on the
//! call's own stream, on another, late, twice, repeated, replayed, or never, over several streams
//! and two workers. A model knows which execution was answered: each answer counts once, and each
//! call is an event.

use std::collections::BTreeMap;

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::Meter;
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

use crate::accountant::kinds;
use crate::dice::Dice;
use crate::host::{Envoy, Memory, meter};
use crate::joins::CONFIG;
use crate::support::test;

const PLAYS: u64 = 1000;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It comes on the call's own stream.
    Own,
    /// The same, and some stream repeats it later, under its event id, another or none.
    Repeated,
    /// It comes on another stream, and perhaps once more.
    Elsewhere,
    /// It never comes.
    Lost,
}

/// One call: its stream on a worker, and where its answer comes.
#[derive(Clone, Debug)]
struct Play {
    session: u64,
    tool: String,
    id: u64,
    fate: Fate,
    is_accepted: bool,
}

struct Stage {
    envoy: Envoy,
    other: Meter,
    dice: Dice,
    next: u32,
    /// Answers that come on another stream later: the session, and the event.
    late: Vec<(u64, String)>,
    told: Vec<Value>,
    /// Whether each call has an id of its own.
    has_own_ids: bool,
}

impl Stage {
    fn new(seed: u64, has_own_ids: bool) -> Self {
        let mut envoy = Envoy::new(CONFIG);
        let other = meter(&mut envoy.host, CONFIG);
        Self {
            envoy,
            other,
            dice: Dice(seed),
            next: 100,
            late: Vec::new(),
            told: Vec::new(),
            has_own_ids,
        }
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
        let Play { session, tool, id, fate, is_accepted } = play;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#
        );
        let answer = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{tool}"}}]}}}}"#
        );
        let stream = self.request(*session, "POST", &body);
        self.wait();
        let numbered = format!("id: {tool}\ndata: {answer}\n\n");
        match fate {
            Fate::Own | Fate::Repeated if self.dice.below(2) == 0 => {
                self.respond(stream, "200", "application/json", &answer, StreamEnd::Complete);
            }
            Fate::Own | Fate::Repeated => {
                self.respond(stream, "200", "text/event-stream", &numbered, StreamEnd::Complete);
            }
            Fate::Elsewhere | Fate::Lost if *is_accepted => {
                self.respond(stream, "202", "text/plain", "", StreamEnd::Complete);
            }
            Fate::Elsewhere | Fate::Lost => {
                self.respond(stream, "200", "text/event-stream", "", StreamEnd::Aborted);
            }
        }
        // Whether a later call with the same id was answered with the same text, or an earlier
        // answer came once more, only its event can tell; or that the earlier one had come on its
        // call's own stream.
        let again = match (self.dice.below(3), fate) {
            (0, Fate::Repeated) => format!("data: {answer}\n\n"),
            (1, Fate::Repeated) if self.has_own_ids => {
                format!("id: again-{tool}\ndata: {answer}\n\n")
            }
            _ => numbered,
        };
        if matches!(fate, Fate::Repeated | Fate::Elsewhere) {
            self.late.push((*session, again));
        }
    }
}

fn run(seed: u64) {
    let is_constant = seed.is_multiple_of(2);
    let mut stage = Stage::new(seed, !is_constant);
    let mut plays = Vec::new();
    for number in 0..2 + stage.dice.below(8) {
        let fate = match stage.dice.below(4) {
            0 => Fate::Own,
            1 => Fate::Repeated,
            2 => Fate::Elsewhere,
            _ => Fate::Lost,
        };
        let play = Play {
            session: stage.dice.below(2),
            tool: format!("t{number}"),
            id: if is_constant { 1 } else { number },
            fate,
            is_accepted: stage.dice.below(2) == 0,
        };
        stage.play(&play);
        plays.push(play);
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
    assert_eq!(calls.len(), plays.len(), "seed {seed}: each call is an event");
    let is_success = |tool: &str| {
        calls.iter().any(|call| call["tool_name"] == tool && call["execution_status"] == "SUCCESS")
    };
    let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
    for play in &plays {
        let is_answered = play.fate != Fate::Lost;
        let found = is_success(&play.tool);
        *balance.entry(play.session).or_default() += i64::from(found) - i64::from(is_answered);
        let is_own = matches!(play.fate, Fate::Own | Fate::Repeated);
        if is_own || !is_constant {
            assert_eq!(found, is_answered, "seed {seed}: {play:?} of {plays:#?}");
        }
    }
    // Which of several calls with one id a late answer is for, nobody can tell.
    assert!(balance.values().all(|off| *off == 0), "seed {seed}: {plays:#?}: {balance:?}");
}

#[test]
fn each_answer_counts_once_whatever_stream_it_comes_on() {
    for seed in 0..PLAYS {
        run(seed);
    }
}

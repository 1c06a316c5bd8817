//! An operator drains an Envoy by its control listener: sessions are closed, everything is
//! acknowledged, and only then comes the answer.

use agent_meter_core::config::control::PluginConfig;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::meter::control::{Control, ControlAction};
use agent_meter_core::wire::http::{Headers, LocalReply};
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::guarded;
use crate::host::{Envoy, answered, events, taken};
use crate::products::headers;
use crate::support::test;

/// An Envoy with a control listener, and a collector that may be down.
struct Drained {
    envoy: Envoy,
    control: Control,
    told: Vec<Value>,
    is_up: bool,
}

impl Drained {
    fn new() -> Self {
        let Ok(PluginConfig::Control(config)) = PluginConfig::from_bytes(br#"{"control": {}}"#)
        else {
            panic!("a control configuration")
        };
        let envoy = Envoy::new(&guarded::config(&json!([]), &json!({})));
        let told = Vec::new();
        Self { envoy, control: Control::new(config, "test"), told, is_up: true }
    }

    fn order(&mut self, stream: u32, method: &str, path: &str) -> ControlAction {
        let head = headers(&[(":method", method), (":path", path)]);
        let Envoy { host, now, .. } = &mut self.envoy;
        self.control.request(host, stream, Headers(&head), u64::from(stream), *now)
    }

    /// Ticks everybody for a while. Gives the answers, with how long each took in milliseconds.
    fn run(&mut self, during_ms: u64) -> Vec<(u64, LocalReply)> {
        let mut answers = Vec::new();
        for tick in 1..=during_ms / 250 {
            let mut waiting = self.envoy.tick(250);
            while let Some(dispatch) = waiting.pop() {
                let reply = if self.is_up { taken() } else { answered(503, b"") };
                if self.is_up {
                    self.told.extend(events(&dispatch));
                }
                let Envoy { main, host, now, .. } = &mut self.envoy;
                waiting.extend(main.reply(host, dispatch.part, reply, *now));
            }
            let Envoy { host, now, .. } = &mut self.envoy;
            let answered = self.control.tick(host, *now).into_iter();
            answers.extend(answered.map(|(_, reply)| (tick * 250, reply)));
        }
        answers
    }

    fn call(&mut self, session: &str) {
        self.envoy.call(session, "t", r#"{"content":[]}"#);
    }

    fn closed(&self) -> Vec<Value> {
        kinds(&self.told, "session_closed")
    }
}

fn body(reply: &LocalReply) -> Value {
    serde_json::from_str(&reply.body).unwrap()
}

#[test]
fn a_drain_is_answered_when_every_session_is_closed_and_everything_acknowledged() {
    let mut drained = Drained::new();
    for session in ["a", "b", "c"] {
        drained.call(session);
    }
    assert_eq!(drained.order(1, "POST", "/drain"), ControlAction::Wait);
    let answers = drained.run(5000);
    let [(waited_ms, answer)] = &answers[..] else { panic!("{answers:?}") };
    assert!(*waited_ms <= 3000, "{waited_ms}");
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = body(answer);
    assert_eq!(
        (&told["state"], &told["open_sessions"], &told["events_waiting"]),
        (&json!("drained"), &json!(0), &json!(0))
    );
    assert_eq!(drained.closed().len(), 3);
    assert!(drained.closed().iter().all(|closed| closed["close_reason"] == "drain"));
    assert_eq!(kinds(&drained.told, "tool_invocation").len(), 3);
    // The source has ended, and tells nothing more while the order holds: what stops then has
    // nothing left for the log.
    let last = drained.told.iter().map(|event| &event["data"]).next_back().unwrap();
    assert_eq!(
        (&last["event_type"], &last["is_last"]),
        (&json!("heartbeat"), &json!(true)),
        "{last}"
    );
    let before = drained.told.len();
    drained.run(15_000);
    assert_eq!(drained.told.len(), before);
    let Envoy { main, worker, host, now, .. } = &mut drained.envoy;
    worker.stop(host, *now);
    main.stop(host, *now);
    assert!(host.spilled.is_empty(), "{:?}", host.spilled);
}

#[test]
fn a_drain_while_the_collector_is_down_is_answered_at_its_deadline_and_loses_nothing() {
    let mut drained = Drained::new();
    drained.call("a");
    drained.is_up = false;
    drained.order(1, "POST", "/drain?deadline=3s");
    let answers = drained.run(6000);
    assert_eq!((answers.len(), answers[0].0, answers[0].1.status), (1, 3000, 504));
    let told = body(&answers[0].1);
    assert_eq!((&told["state"], &told["open_sessions"]), (&json!("draining"), &json!(0)));
    assert!(told["events_waiting"].as_u64().unwrap() >= 3, "{told}");
    drained.is_up = true;
    drained.run(10_000);
    assert_eq!(drained.closed().len(), 1);
}

#[test]
fn sessions_may_be_kept_and_new_ones_refused() {
    let mut drained = Drained::new();
    drained.call("a");
    drained.order(1, "POST", "/drain?sessions=keep&intake=stop&deadline=10s");
    let answers = drained.run(2000);
    assert_eq!(answers[0].1.status, 200);
    assert_eq!(body(&answers[0].1)["open_sessions"], 1);
    assert!(drained.closed().is_empty());
    // A request that names a session goes on; one that names none is refused until the order ends.
    drained.call("a");
    let ask = |drained: &mut Drained, stream: u32| {
        let head = headers(&[(":method", "POST"), (":path", "/mcp"), ("x-customer-id", "acme")]);
        let Envoy { worker, host, now, .. } = &mut drained.envoy;
        let action = worker.request_head(host, stream, Headers(&head), *now);
        worker.stream_end(host, stream, StreamEnd::Aborted, *now);
        action
    };
    let HeadAction::Answer(refusal) = ask(&mut drained, 90) else { panic!("let in") };
    assert_eq!(refusal.status, 503);
    assert!(refusal.headers.contains(&("retry-after", "1".to_owned())), "{refusal:?}");
    assert_eq!(body(&refusal)["error"]["data"]["reason"], "draining");
    drained.run(10_000);
    assert!(matches!(ask(&mut drained, 91), HeadAction::Follow(_)), "the order is over");
}

#[test]
fn traffic_that_goes_on_does_not_hold_an_answer_back() {
    let mut drained = Drained::new();
    drained.call("a");
    drained.order(1, "POST", "/drain");
    let mut answers = Vec::new();
    for number in 0..20 {
        drained.call(&format!("s{number}"));
        answers.extend(drained.run(250));
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].1.status, 200);
    // Sessions that began later are not torn into pieces.
    let later = drained.closed().iter().filter(|closed| closed["total_tool_calls"] == 0).count();
    assert_eq!(later, 0);
    assert!(body(&answers[0].1)["open_sessions"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_no_order_is_answered_at_once_with_what_is_expected() {
    let mut drained = Drained::new();
    for (method, path, status, error) in [
        ("POST", "/", 404, "expected /drain, /pause or /resume"),
        ("POST", "/drain/", 404, "expected /drain, /pause or /resume"),
        ("GET", "/drain", 405, "expected POST"),
        (
            "POST",
            "/drain?deadline=soon",
            400,
            "deadline: expected a duration such as 25s, at most 1h, found \"soon\"",
        ),
        (
            "POST",
            "/drain?deadline=2h",
            400,
            "deadline: expected a duration such as 25s, at most 1h, found \"2h\"",
        ),
        ("POST", "/drain?sessions=all", 400, "sessions: expected close or keep, found \"all\""),
        ("POST", "/drain?intake=", 400, "intake: expected stop or go, found \"\""),
        ("POST", "/drain?now", 400, "now: unknown, expected deadline, sessions or intake"),
    ] {
        let ControlAction::Answer(reply) = drained.order(1, method, path) else {
            panic!("{method} {path}")
        };
        assert_eq!((reply.status, &body(&reply)["error"]), (status, &json!(error)));
    }
    assert!(drained.run(5000).is_empty());
    assert!(drained.closed().is_empty());
}

#[test]
fn an_order_that_nobody_carries_out_is_answered_so() {
    let mut drained = Drained::new();
    drained.order(1, "POST", "/drain?deadline=1s");
    let Envoy { host, now, .. } = &mut drained.envoy;
    now.0 += 1000;
    let answers = drained.control.tick(host, *now);
    assert_eq!((answers.len(), answers[0].1.status), (1, 504));
    assert_eq!(body(&answers[0].1)["state"], "unanswered");
    // Of a client that has left nothing is kept.
    drained.order(2, "POST", "/drain?deadline=1s");
    drained.control.stream_end(2);
    assert!(drained.run(2000).is_empty());
}

#[test]
fn a_configuration_of_either_kind_is_read_and_no_mixture() {
    for (json, error) in [
        (r#"{"control": {"drain_path": "drain"}}"#, "control.drain_path: expected"),
        (r#"{"control": {"path": "/x"}}"#, "control.path: unknown field"),
        (r#"{"control": {}, "products": []}"#, "products: unknown field"),
        (r#"{"controls": {}}"#, "controls: unknown field"),
    ] {
        let found = PluginConfig::from_bytes(json.as_bytes()).unwrap_err().to_string();
        assert!(found.starts_with(error), "{json}: {found}");
    }
}

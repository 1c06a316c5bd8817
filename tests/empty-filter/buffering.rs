//! A filter in the manner of Moesif's: holds both bodies until they are whole, copies them with all headers
//! of both directions, makes one JSON event of them, and sends a hundred of those at once.
//!
//! It does less than Moesif's own (github.com/Moesif/moesif-envoy-wasm-plugin), which also asks for some
//! headers one by one, reads the bodies as JSON, logs, and hands events over by a shared queue.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

/// How many events go at once, and how long fewer wait: Moesif's defaults.
const EVENTS_MAX: usize = 100;
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(2);
/// What a collector that takes nothing may cost, in events.
const KEPT_MAX: usize = 100 * EVENTS_MAX;

const CLUSTER: &str = "agent_meter_collector";
const PATH: &str = "/v1/exchanges";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The events of one VM that were not sent yet.
pub(crate) struct Batch {
    /// The context that outlives all streams, and so can wait for answers.
    root: u32,
    events: RefCell<Vec<String>>,
}

impl Batch {
    pub(crate) fn new(root: u32) -> Self {
        Self { root, events: RefCell::default() }
    }

    fn add(&self, event: String) {
        let mut events = self.events.borrow_mut();
        if events.len() < KEPT_MAX {
            events.push(event);
        }
        let is_full = events.len() >= EVENTS_MAX;
        drop(events);
        // A stream that has ended takes its calls along, so this one is the root's.
        if is_full && hostcalls::set_effective_context(self.root).is_ok() {
            self.send();
        }
    }

    /// Sends what is there; keeps it if the host takes nothing.
    pub(crate) fn send(&self) {
        let mut events = self.events.borrow_mut();
        if events.is_empty() {
            return;
        }
        let body = format!("[{}]", events.join(","));
        let headers = vec![
            (":method", "POST"),
            (":path", PATH),
            (":authority", "exchanges"),
            ("content-type", "application/json"),
        ];
        let sent =
            hostcalls::dispatch_http_call(CLUSTER, headers, Some(body.as_bytes()), vec![], TIMEOUT);
        if sent.is_ok() {
            events.clear();
        }
    }
}

/// One exchange.
pub(crate) struct Buffering {
    batch: Rc<Batch>,
    request: Message,
    response: Message,
}

#[derive(Default)]
struct Message {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Buffering {
    pub(crate) fn new(batch: Rc<Batch>) -> Self {
        Self { batch, request: Message::default(), response: Message::default() }
    }
}

impl Context for Buffering {}

impl HttpContext for Buffering {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        self.request.headers = self.get_http_request_headers();
        Action::Continue
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        self.request.body = self.get_http_request_body(0, body_size).unwrap_or_default();
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        self.response.headers = self.get_http_response_headers();
        Action::Continue
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        self.response.body = self.get_http_response_body(0, body_size).unwrap_or_default();
        Action::Continue
    }

    fn on_log(&mut self) {
        let mut event = String::with_capacity(4096);
        event.push_str("{\"request\":");
        self.request.write(&mut event);
        event.push_str(",\"response\":");
        self.response.write(&mut event);
        event.push('}');
        self.batch.add(event);
    }
}

impl Message {
    fn write(&self, json: &mut String) {
        json.push_str("{\"headers\":[");
        for (place, (name, value)) in self.headers.iter().enumerate() {
            json.push_str(if place > 0 { ",[" } else { "[" });
            write_text(json, name);
            json.push(',');
            write_text(json, value);
            json.push(']');
        }
        json.push_str("],\"body\":");
        write_text(json, &String::from_utf8_lossy(&self.body));
        json.push('}');
    }
}

/// Writes a JSON string: runs that need no escape at once.
fn write_text(json: &mut String, text: &str) {
    json.push('"');
    let mut rest = text;
    while let Some(place) = rest.find(|char: char| char < ' ' || char == '"' || char == '\\') {
        let (plain, found) = rest.split_at(place);
        json.push_str(plain);
        // Only single bytes are sought.
        let (special, after) = found.split_at(1);
        match special {
            "\"" | "\\" => {
                json.push('\\');
                json.push_str(special);
            }
            _ => {
                for byte in special.bytes() {
                    json.push_str(&format!("\\u{byte:04x}"));
                }
            }
        }
        rest = after;
    }
    json.push_str(rest);
    json.push('"');
}

//! Three filters that meter nothing, for `agent-meter bench`.
//!
//! The empty one gets the headers and bodies of both directions and does nothing: the price of the calls
//! into Wasm alone. With the configuration `read` it asks the host for what a filter that meters has to
//! ask, in the same way, and decides nothing: the price of Envoy as a host of such a filter. With the configuration `buffer` it keeps
//! whole exchanges and sends them elsewhere, see [`buffering`].

#![expect(missing_docs, reason = "the SDK's `main!` makes a public function without any")]

mod buffering;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::buffering::{Batch, Buffering};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(Root { id, kind: Kind::Empty }));
}}

/// The size of what one call leaves in shared data.
const RECORD: [u8; 300] = [7; 300];
const MARK: &str = "wasm.agent_meter_bench";

struct Root {
    /// Of this context, in the host.
    id: u32,
    kind: Kind,
}

/// Which filter the configuration names.
enum Kind {
    Empty,
    Reading,
    Buffering(Rc<Batch>),
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.kind = match self.get_plugin_configuration().as_deref() {
            None | Some(b"") => Kind::Empty,
            Some(b"read") => Kind::Reading,
            Some(b"buffer") => {
                self.set_tick_period(buffering::WAIT_MAX);
                Kind::Buffering(Rc::new(Batch::new(self.id)))
            }
            Some(_) => return false,
        };
        true
    }

    fn on_tick(&mut self) {
        if let Kind::Buffering(batch) = &self.kind {
            batch.send();
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.kind {
            Kind::Empty => Box::new(Empty),
            Kind::Reading => Box::new(Reading),
            Kind::Buffering(batch) => Box::new(Buffering::new(Rc::clone(batch))),
        })
    }
}

struct Empty;

impl Context for Empty {}

impl HttpContext for Empty {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }

    fn on_http_request_body(&mut self, _body_size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_body(&mut self, _body_size: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
}

/// Reads both heads, both bodies and the clock, marks the stream, holds the request until it is whole,
/// and leaves a record in shared data.
struct Reading;

impl Context for Reading {}

impl HttpContext for Reading {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        self.get_http_request_headers_bytes();
        self.get_current_time();
        if self.get_property(vec![MARK]).is_none() {
            self.set_property(vec![MARK], Some(b"1"));
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        self.get_http_request_body(0, body_size);
        self.get_current_time();
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        self.get_http_response_headers_bytes();
        Action::Continue
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.get_http_response_body(0, body_size);
        if end_of_stream {
            self.get_current_time();
            // Without a version it is written whatever is there.
            let _ = self.set_shared_data("record", Some(&RECORD), None);
        }
        Action::Continue
    }
}

//! Envoy's callbacks for one HTTP stream. Every chunk goes on at once, unless a guard holds the
//! request until its message is known.

use std::cell::RefCell;
use std::rc::Rc;

use agent_meter_core::admission::already_metered::MARK;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::domain::level::Level;
use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::guard::mark;
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use crate::host;
use crate::vm::Vm;

/// Where Envoy's `ai_protocol_manager` publishes the usage that it extracted: a serialised
/// `TokenUsage`.
const TOKEN_USAGE: &[&str] = &["metadata", "typed_filter_metadata", "envoy.ai.token_usage"];

#[derive(Debug)]
pub(crate) struct Stream {
    /// `None` if the stream belongs to no product, or has ended.
    vm: Option<Rc<RefCell<Vm>>>,
    id: u32,
    request: BodyInterest,
    response: BodyInterest,
    is_request_complete: bool,
    is_response_complete: bool,
    /// The number of bytes of the request's body that are held. Envoy shows them again with each
    /// further chunk.
    held: usize,
    /// The level that the response's headers report.
    mark: Level,
}

impl Stream {
    pub(crate) fn new(vm: Option<Rc<RefCell<Vm>>>, id: u32) -> Self {
        Self {
            vm,
            id,
            request: BodyInterest::None,
            response: BodyInterest::None,
            is_request_complete: false,
            is_response_complete: false,
            held: 0,
            mark: Level::None,
        }
    }

    /// Passes the next bytes of the request to the meter.
    fn request_bytes(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> BodyAction {
        let Some(vm) = &self.vm else { return BodyAction::Go(None) };
        self.is_request_complete |= is_end;
        let Vm { meter, envoy } = &mut *vm.borrow_mut();
        meter.request_body(envoy, self.id, chunk, is_end, now)
    }

    /// Sends the request on, holds it, or answers it. `size` is that of the part of its body that
    /// Envoy shows.
    fn pass(&mut self, passage: BodyAction, size: usize) -> Action {
        match passage {
            BodyAction::Hold => {
                self.held = size;
                Action::Pause
            }
            BodyAction::Answer(reply) => {
                if let Some(vm) = self.vm.take() {
                    self.log(&mut vm.borrow_mut().meter);
                }
                host::answer(&reply)
            }
            BodyAction::Go(bytes) => {
                if let Some(edited) = bytes {
                    host::replace(BufferType::HttpRequestBody, size, &edited);
                }
                Action::Continue
            }
        }
    }

    /// Reports the guards' level in headers: now of the request, later of the response.
    fn show(&mut self, mark: Level) {
        self.mark = mark;
        for (name, value) in mark::request_headers(mark) {
            host::set_request_header(name, value);
        }
    }

    /// Notes that the response is complete. If the client is still sending the request, the stream
    /// stays open until Envoy logs it.
    fn response_end(&mut self, now: Option<Timestamp>) {
        self.is_response_complete = true;
        if self.is_request_complete {
            self.end(StreamEnd::Complete, now);
        }
    }

    /// Ends the stream. `now` is the clock, if this callback has read it: each reading is a host call.
    fn end(&mut self, end: StreamEnd, now: Option<Timestamp>) {
        if let Some(vm) = self.vm.take() {
            let wants_usage = vm.borrow().meter.wants_envoy_usage(self.id);
            let record = if wants_usage { host::property_bytes(TOKEN_USAGE) } else { None };
            let Vm { meter, envoy } = &mut *vm.borrow_mut();
            if let Some(record) = record {
                meter.envoy_usage(self.id, &record);
            }
            let now = now.unwrap_or_else(host::now);
            meter.stream_end(envoy, self.id, end, now);
            self.log(meter);
        }
    }

    /// Leaves what an access log is to tell in Envoy's filter state.
    fn log(&self, meter: &mut Meter) {
        for (name, value) in meter.take_log(self.id) {
            host::set_property(name, &value);
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let Some(vm) = self.vm.clone() else { return Action::Continue };
        let headers = host::headers(MapType::HttpRequestHeaders);
        #[cfg(feature = "crash-test")]
        crate::crash::request(Headers(&headers));
        let now = host::now();
        let head = {
            let Vm { meter, envoy } = &mut *vm.borrow_mut();
            let headers = Headers(&headers);
            if end_of_stream {
                meter.request_without_body(envoy, self.id, headers, now)
            } else {
                meter.request_head(envoy, self.id, headers, now)
            }
        };
        let edit = match head {
            HeadAction::Follow(edit) => edit,
            HeadAction::Forget(edit) => {
                self.vm = None;
                edit
            }
            HeadAction::Pass => {
                self.vm = None;
                return Action::Continue;
            }
            HeadAction::Answer(reply) => {
                self.log(&mut vm.borrow_mut().meter);
                self.vm = None;
                return host::answer(&reply);
            }
        };
        self.request = edit.body_interest;
        if let Some(value) = edit.accept_encoding {
            host::set_request_header("accept-encoding", &value);
        }
        if edit.is_length_unknown {
            host::remove_header(MapType::HttpRequestHeaders, "content-length");
        }
        for name in &edit.remove {
            host::remove_header(MapType::HttpRequestHeaders, name);
        }
        for (name, value) in &edit.set {
            host::set_request_header(name, value);
        }
        if let Some(id) = &edit.metered_as {
            host::set_property(MARK, id);
        }
        self.show(edit.mark);
        if end_of_stream {
            let passage = self.request_bytes(&[], true, now);
            return self.pass(passage, 0);
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if let (Some(vm), BodyInterest::Size) = (&self.vm, self.request) {
            let now = host::now();
            vm.borrow_mut().meter.request_size(self.id, body_size, now);
            if end_of_stream {
                self.request_bytes(&[], true, now);
            }
            return Action::Continue;
        }
        if self.vm.is_none() {
            return Action::Continue;
        }
        let new = body_size.saturating_sub(self.held);
        let chunk = host::buffer(BufferType::HttpRequestBody, self.held, new);
        let passage = self.request_bytes(&chunk, end_of_stream, host::now());
        self.pass(passage, body_size)
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let passage = self.request_bytes(&[], true, host::now());
        self.pass(passage, 0)
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        if let Some(vm) = &self.vm {
            let headers = host::headers(MapType::HttpResponseHeaders);
            let is_shortened = {
                let meter = &mut vm.borrow_mut().meter;
                self.response = meter.response_head(self.id, Headers(&headers));
                meter.shortens_response(self.id)
            };
            if is_shortened {
                host::remove_header(MapType::HttpResponseHeaders, "content-length");
            }
        }
        for (name, value) in mark::response_headers(self.mark) {
            host::add_response_header(name, value);
        }
        if end_of_stream {
            self.response_end(None);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let mut now = None;
        if let (Some(vm), BodyInterest::Size) = (&self.vm, self.response) {
            vm.borrow_mut().meter.response_size(self.id, body_size);
        }
        if let Some(vm) = &self.vm
            && self.response == BodyInterest::Bytes
            && (body_size > 0 || end_of_stream)
        {
            let chunk = host::buffer(BufferType::HttpResponseBody, 0, body_size);
            let edited = {
                let Vm { meter, envoy } = &mut *vm.borrow_mut();
                let now = *now.insert(host::now());
                meter.response_body(envoy, self.id, &chunk, end_of_stream, now)
            };
            if let Some(edited) = edited {
                host::replace(BufferType::HttpResponseBody, body_size, &edited);
            }
        }
        if end_of_stream {
            self.response_end(now);
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _num_trailers: usize) -> Action {
        if let Some(vm) = &self.vm {
            let trailers = host::headers(MapType::HttpResponseTrailers);
            vm.borrow_mut().meter.response_trailers(self.id, Headers(&trailers));
        }
        self.response_end(None);
        Action::Continue
    }

    fn on_log(&mut self) {
        let is_complete = self.is_response_complete;
        self.end(if is_complete { StreamEnd::Complete } else { StreamEnd::Aborted }, None);
    }
}

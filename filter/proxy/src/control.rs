//! Envoy's callbacks for one HTTP stream on the control listener.

use std::cell::RefCell;
use std::rc::Rc;

use agent_meter_core::meter::control::{Control, ControlAction};
use agent_meter_core::wire::http::Headers;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use crate::host::{self, Envoy};

/// The filter of a control listener and its host, which the callbacks of one VM share.
#[derive(Debug)]
pub(crate) struct ControlVm {
    pub(crate) control: Control,
    pub(crate) envoy: Envoy,
}

#[derive(Debug)]
pub(crate) struct ControlStream {
    pub(crate) vm: Rc<RefCell<ControlVm>>,
    pub(crate) id: u32,
}

impl Context for ControlStream {}

impl HttpContext for ControlStream {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let headers = host::headers(MapType::HttpRequestHeaders);
        let ControlVm { control, envoy } = &mut *self.vm.borrow_mut();
        let (id, now) = (host::now_ns(), host::now());
        match control.request(envoy, self.id, Headers(&headers), id, now) {
            ControlAction::Answer(reply) => host::answer(&reply),
            ControlAction::Wait => Action::Pause,
        }
    }

    fn on_log(&mut self) {
        self.vm.borrow_mut().control.stream_end(self.id);
    }
}

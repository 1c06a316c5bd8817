//! Envoy's callbacks for the whole plugin in one VM: configuration, ticks and the collector's
//! replies.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::control::PluginConfig;
use agent_meter_core::config::delivery::Collector;
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::VmInfo;
use agent_meter_core::meter::control::Control;
use agent_meter_core::sink::format::Format;
use agent_meter_core::sink::reply::{HttpReply, Reply};
use agent_meter_core::wire::http::Headers;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, MapType};

use crate::control::{ControlStream, ControlVm};
use crate::host::{self, Envoy};
use crate::stream::Stream;
use crate::vm::Vm;

/// How often the filter looks for due work.
const TICK_PERIOD: Duration = Duration::from_millis(250);
/// How long its thread serves others between two pieces of what a tick has found.
const PAUSE: Duration = Duration::from_millis(2);
/// What the accountant does in one piece, which takes less than a millisecond.
const PIECE: usize = 64;
/// The filter reads up to this many bytes of the collector's reply; a longer one is no receipt. The
/// totals of the scopes of 1,000 events need about a quarter.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Root {
    vm: Option<Rc<RefCell<Vm>>>,
    /// Set instead of `vm` on a control listener.
    control: Option<Rc<RefCell<ControlVm>>>,
    /// The part that each request in flight carries, by Envoy's token.
    tokens: HashMap<u32, u64>,
    /// When the last tick was; Envoy's timer also fires for pieces of it.
    ticked_at: Timestamp,
    /// How often Envoy's timer fires.
    period: Duration,
}

impl Root {
    /// Sends the meter's requests. The meter is not borrowed meanwhile, because Envoy may call back
    /// at once.
    fn send(&mut self, requests: Vec<Dispatch>) {
        let Some(vm) = self.vm.clone() else { return };
        let collector: Collector = vm.borrow().meter.config().collector.clone();
        let mut waiting = VecDeque::from(requests);
        while let Some(request) = waiting.pop_front() {
            match host::dispatch(&collector, &request) {
                Ok(token) => {
                    self.tokens.insert(token, request.part);
                }
                Err(status) => {
                    let cluster = &collector.cluster;
                    log::warn!("agent-meter cannot reach cluster={cluster} status={status:?}");
                    let failed = Reply::Failed { retry_after: None };
                    waiting.extend(self.settle(request.part, failed));
                }
            }
        }
    }

    /// How long it is until the next tick is due. If the clock was set back, it is.
    fn until_tick(&self, now: Timestamp) -> Duration {
        let passed = now.0.checked_sub(self.ticked_at.0).map(Duration::from_millis);
        passed.map_or(Duration::ZERO, |passed| TICK_PERIOD.saturating_sub(passed))
    }

    fn set_period(&mut self, period: Duration) {
        if self.period != period {
            self.period = period;
            host::set_tick_period(period);
        }
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(self.vm.as_ref()?.borrow().meter.config().collector.format.format())
    }

    fn settle(&mut self, part: u64, reply: Reply) -> Vec<Dispatch> {
        let Some(vm) = &self.vm else { return Vec::new() };
        let Vm { meter, envoy } = &mut *vm.borrow_mut();
        meter.reply(envoy, part, reply, host::now())
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        let Some(part) = self.tokens.remove(&token) else { return };
        let headers = host::headers(MapType::HttpCallResponseHeaders);
        let headers = Headers(&headers);
        let status = headers.get(":status").and_then(|text| core::str::from_utf8(text).ok());
        let status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
        let body =
            host::buffer(BufferType::HttpCallResponseBody, 0, body_size.min(REPLY_BYTES_MAX));
        let Some(format) = self.format() else { return };
        let reply = format.reply(&HttpReply {
            status,
            media_type: headers.get("content-type"),
            retry_after: headers.get("retry-after"),
            body: &body,
            at: host::now(),
        });
        match reply {
            Reply::Taken { .. } => {}
            Reply::Failed { .. } | Reply::Refused => {
                log::warn!("agent-meter delivery failed http_status={status}");
            }
            Reply::NoReceipt => {
                log::warn!("agent-meter delivery failed http_status={status}: no receipt");
            }
        }
        let requests = self.settle(part, reply);
        self.send(requests);
    }

    fn on_done(&mut self) -> bool {
        if let Some(vm) = &self.vm {
            let Vm { meter, envoy } = &mut *vm.borrow_mut();
            meter.stop(envoy, host::now());
            envoy.flush_counters();
        }
        // Envoy never sends a callout dispatched from here, also when it lives on without the filter: it
        // destroys the VM at once, whatever this returns. So there is nothing to wait for.
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        let json = host::buffer(BufferType::PluginConfiguration, 0, configuration_size);
        let config = match PluginConfig::from_bytes(&json) {
            Ok(config) => config,
            Err(refused) => {
                log::error!("agent-meter configuration refused: {refused}");
                return false;
            }
        };
        let mut envoy = Envoy::new();
        let plugin = host::property(&["plugin_name"]);
        self.set_period(TICK_PERIOD);
        let config = match config {
            PluginConfig::Meter(config) => *config,
            PluginConfig::Control(config) => {
                let control = Control::new(config, &plugin);
                self.control = Some(Rc::new(RefCell::new(ControlVm { control, envoy })));
                return true;
            }
        };
        let place = VmInfo {
            plugin,
            node: host::property(&["xds", "node", "id"]),
            seed: host::now_ns(),
            piece: PIECE,
        };
        let meter = Meter::new(&mut envoy, config, &json, place, host::now());
        self.vm = Some(Rc::new(RefCell::new(Vm { meter, envoy })));
        true
    }

    fn on_tick(&mut self) {
        if let Some(control) = &self.control {
            let answers = {
                let ControlVm { control, envoy } = &mut *control.borrow_mut();
                control.tick(envoy, host::now())
            };
            // Envoy takes what follows in this call for the answered stream's.
            answers.iter().for_each(|(stream, reply)| host::answer_later(*stream, reply));
        }
        let Some(vm) = self.vm.clone() else { return };
        let now = host::now();
        let (requests, closed, has_work) = {
            let Vm { meter, envoy } = &mut *vm.borrow_mut();
            #[cfg(feature = "crash-test")]
            crate::crash::tick(meter.is_accountant());
            let requests = if meter.has_work() && !self.until_tick(now).is_zero() {
                meter.go_on(envoy, now)
            } else {
                self.ticked_at = now;
                meter.tick(envoy, now)
            };
            envoy.flush_counters();
            (requests, meter.closes(now), meter.has_work())
        };
        self.send(requests);
        self.set_period(if has_work { PAUSE } else { self.until_tick(now) });
        // Close streams last, because Envoy takes what follows in this call for the closed
        // stream's.
        closed.into_iter().for_each(host::close);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.control {
            Some(vm) => Box::new(ControlStream { vm: Rc::clone(vm), id: context_id }),
            None => Box::new(Stream::new(self.vm.clone(), context_id)),
        })
    }
}

//! Panics on request, for the tests that kill VMs. Compiled only with the feature `crash-test`.

use std::cell::Cell;

use agent_meter_core::wire::http::Headers;
use proxy_wasm::hostcalls;

/// The key under which a worker leaves the order to kill the accountant.
const KEY: &str = "agent-meter.crash-test";

thread_local! {
    /// The number of host calls until the panic.
    static FUSE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Reads `x-agent-meter-crash`: `worker` kills this VM; `accountant=N` kills the accountant's VM at
/// host call N of a tick.
pub(crate) fn request(headers: Headers<'_>) {
    match headers.get("x-agent-meter-crash") {
        Some(b"worker") => blow(),
        Some(order) => {
            let _ = hostcalls::set_shared_data(KEY, order.strip_prefix(b"accountant="), None);
        }
        None => {}
    }
}

/// Lights the fuse if a worker has left an order.
pub(crate) fn tick(is_accountant: bool) {
    FUSE.set(None);
    if !is_accountant {
        return;
    }
    if let Ok((Some(order), _)) = hostcalls::get_shared_data(KEY) {
        let calls = core::str::from_utf8(&order).ok().and_then(|text| text.parse().ok());
        if calls.is_some() {
            let _ = hostcalls::set_shared_data(KEY, None, None);
            FUSE.set(calls);
        }
    }
}

/// Shortens the fuse by one host call.
pub(crate) fn host_call() {
    match FUSE.get() {
        Some(0) => blow(),
        Some(left) => FUSE.set(Some(left.saturating_sub(1))),
        None => {}
    }
}

#[expect(clippy::panic, reason = "this is what the feature is for")]
fn blow() -> ! {
    FUSE.set(None);
    panic!("on request");
}

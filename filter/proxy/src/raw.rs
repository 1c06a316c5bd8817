//! Host calls whose refusal is an answer. The SDK's own function panics then, and a panic takes down
//! every stream of a worker.

#![expect(unsafe_code, reason = "a host call is one")]

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Proxy-Wasm ABI 0.2.1: sets a property of the stream of the effective context.
    fn proxy_set_property(
        path_data: *const u8,
        path_size: usize,
        value_data: *const u8,
        value_size: usize,
    ) -> u32;
}

/// Sets a property with a name of one part. Returns whether Envoy took it.
pub(crate) fn set_property(name: &str, value: &[u8]) -> bool {
    // SAFETY: the host reads both pieces of memory during the call, and keeps neither.
    let status =
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    status == 0
}

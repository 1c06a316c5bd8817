//! Host calls for which the SDK's own function does too much: it panics where a refusal is an
//! answer, and a panic takes down every stream of a worker; or it copies each header by itself.

#![expect(unsafe_code, reason = "a host call is one")]

use proxy_wasm::types::MapType;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Proxy-Wasm ABI 0.2.1: sets a property of the stream of the effective context.
    fn proxy_set_property(
        path_data: *const u8,
        path_size: usize,
        value_data: *const u8,
        value_size: usize,
    ) -> u32;

    /// Proxy-Wasm ABI 0.2.1: gives a property, in memory that it takes from this module's allocator.
    fn proxy_get_property(
        path_data: *const u8,
        path_size: usize,
        return_data: *mut *mut u8,
        return_size: *mut usize,
    ) -> u32;

    /// Proxy-Wasm ABI 0.2.1: gives the wall clock.
    fn proxy_get_current_time_nanoseconds(return_time: *mut u64) -> u32;

    /// Proxy-Wasm ABI 0.2.1: gives all headers of a map, in memory that it takes from this module's
    /// allocator.
    fn proxy_get_header_map_pairs(
        map: u32,
        return_data: *mut *mut u8,
        return_size: *mut usize,
    ) -> u32;
}

/// All headers of a map in the host's own form; nothing if there is no such map.
pub(crate) fn header_map(map: MapType) -> Vec<u8> {
    let (mut data, mut size) = (core::ptr::null_mut(), 0_usize);
    // SAFETY: the host writes to both places during the call, and keeps neither.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &raw mut data, &raw mut size) };
    if status != 0 || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host took this memory from `malloc` of the SDK, which makes a vector of exactly this
    // capacity and forgets it, and wrote all of it.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// The host's wall clock in nanoseconds since 1970; 0 without one.
pub(crate) fn current_time_ns() -> u64 {
    let mut now = 0;
    // SAFETY: the host writes to this place during the call, and does not keep it.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut now) };
    now
}

/// A property, by the parts of its path; `None` if there is none.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    let (mut data, mut size) = (core::ptr::null_mut(), 0_usize);
    // SAFETY: the host reads the path and writes to both places during the call, and keeps nothing.
    let status =
        unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    (status == 0 && !data.is_null()).then(|| {
        // SAFETY: as in `header_map`.
        unsafe { Vec::from_raw_parts(data, size, size) }
    })
}

/// Sets a property with a name of one part. Returns whether Envoy took it.
pub(crate) fn set_property(name: &str, value: &[u8]) -> bool {
    // SAFETY: the host reads both pieces of memory during the call, and keeps neither.
    let status =
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    status == 0
}

//! An allocator that counts what the current thread holds: each test runs in a thread of its own.

#![expect(unsafe_code, reason = "a global allocator is unsafe by its signature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize, is_more: bool) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    // A thread that ends frees after its counters are gone.
    let _ = LIVE.try_with(|live| {
        live.set(if is_more { live.get() + bytes } else { live.get() - bytes });
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: it does what the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), true);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), false);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Live heap of this thread.
pub(crate) fn live() -> isize {
    LIVE.with(Cell::get)
}

/// Live heap at its highest since the last call.
#[allow(dead_code, reason = "not every test binary asks for it")]
pub(crate) fn take_peak() -> isize {
    PEAK.with(|peak| peak.replace(live()))
}

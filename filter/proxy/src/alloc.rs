//! The module's allocator: lists of freed small blocks before the library's own allocator.
//!
//! A call allocates and frees some hundred small blocks, of the same few sizes each time. A list for
//! each size gives one back with a few instructions, where the general allocator searches and joins
//! neighbours: a call executes a tenth fewer in all. What a list holds stays in it, so the memory of
//! small blocks is the most that was in use of each size at once.

#![expect(unsafe_code, reason = "an allocator hands out memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::{copy_nonoverlapping, null_mut};
use std::alloc::System;

/// Bytes by which the sizes of the lists differ, and the alignment of their blocks.
const STEP_BYTES: usize = 16;
/// Bytes of the largest blocks that a list keeps.
const KEPT_BYTES_MAX: usize = 512;
const LISTS: usize = KEPT_BYTES_MAX / STEP_BYTES + 1;

/// A block that is free: where the next one of its size is.
struct Free {
    next: *mut Free,
}

/// Allocates for the one thread that a Wasm module has.
pub(crate) struct Allocator {
    lists: [Cell<*mut Free>; LISTS],
}

// SAFETY: the module is built without threads, so there is one thread that could use it.
#[cfg(not(target_feature = "atomics"))]
unsafe impl Sync for Allocator {}

impl Allocator {
    pub(crate) const fn new() -> Self {
        Self { lists: [const { Cell::new(null_mut()) }; LISTS] }
    }

    /// The list for blocks of this layout, and the size of its blocks.
    #[inline]
    fn list(&self, layout: Layout) -> Option<(&Cell<*mut Free>, usize)> {
        if layout.size() > KEPT_BYTES_MAX || layout.align() > STEP_BYTES {
            return None;
        }
        let number = layout.size().div_ceil(STEP_BYTES);
        let list = self.lists.get(number)?;
        Some((list, number.max(1).wrapping_mul(STEP_BYTES)))
    }
}

// SAFETY: a block of a list has the list's size and alignment, which no layout of the list exceeds,
// and is in a list only while nobody has it. Everything else is the library's.
unsafe impl GlobalAlloc for Allocator {
    // One copy: inlined everywhere, the lists would cost the module 14 KB.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((list, size)) = self.list(layout) else {
            // SAFETY: the caller's layout, unchanged.
            return unsafe { System.alloc(layout) };
        };
        let first = list.get();
        if first.is_null() {
            // SAFETY: the size is not zero, and the alignment is a power of two.
            return unsafe { System.alloc(Layout::from_size_align_unchecked(size, STEP_BYTES)) };
        }
        // SAFETY: what is in a list was written by `dealloc`.
        list.set(unsafe { (*first).next });
        first.cast()
    }

    #[inline(never)]
    #[expect(clippy::cast_ptr_alignment, reason = "blocks of lists are aligned to 16 bytes")]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((list, _)) = self.list(layout) else {
            // SAFETY: `alloc` took it from there, as the layout is the same.
            return unsafe { System.dealloc(block, layout) };
        };
        let freed = block.cast::<Free>();
        // SAFETY: the block has at least 16 bytes, is aligned to them, and is no longer in use.
        unsafe { freed.write(Free { next: list.get() }) };
        list.set(freed);
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller warrants that the size, rounded up, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (self.list(layout), self.list(wanted)) {
            (Some((_, has)), Some((_, needs))) if has == needs => block,
            // SAFETY: the library's own block, and it stays so.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            // SAFETY: the new block is another one, and both have the bytes that are copied.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

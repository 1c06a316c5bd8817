//! The module's allocator, on this machine: blocks that live at once never overlap, and keep what was
//! written into them.

#[path = "../../filter/proxy/src/alloc.rs"]
mod alloc;

use std::alloc::{GlobalAlloc as _, Layout};

use alloc::Allocator;

/// A block and the byte that fills it.
struct Block {
    at: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Block {
    #[expect(unsafe_code, reason = "the allocator hands out memory")]
    fn check(&self) {
        // SAFETY: the block is in use and was filled as a whole.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.fill), "{:?}", self.layout);
        assert_eq!(self.at as usize % self.layout.align(), 0, "{:?}", self.layout);
    }

    #[expect(unsafe_code, reason = "the allocator hands out memory")]
    fn fill(&mut self, fill: u8) {
        self.fill = fill;
        // SAFETY: the block has as many bytes as its layout.
        unsafe { self.at.write_bytes(fill, self.layout.size()) };
    }
}

#[test]
#[expect(unsafe_code, reason = "the allocator hands out memory")]
fn blocks_that_live_at_once_never_overlap() {
    let allocator = Allocator::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut state = 1_u64;
    let mut dice = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    for step in 0..200_000_usize {
        let size = [1, 8, 15, 16, 17, 100, 511, 512, 513, 528, 4_000][dice(11)] + dice(3);
        let fill = u8::try_from(step % 251).unwrap();
        match dice(3) {
            _ if blocks.len() > 300 => {
                let block = blocks.swap_remove(dice(300));
                block.check();
                // SAFETY: with the layout of its allocation.
                unsafe { allocator.dealloc(block.at, block.layout) };
            }
            0 if !blocks.is_empty() => {
                let place = dice(blocks.len());
                let block = &mut blocks[place];
                block.check();
                let kept = block.layout.size().min(size);
                // SAFETY: with the layout of its allocation, and a size that is not zero.
                block.at = unsafe { allocator.realloc(block.at, block.layout, size) };
                block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                // SAFETY: the first bytes are those of before.
                let bytes = unsafe { std::slice::from_raw_parts(block.at, kept) };
                assert!(bytes.iter().all(|byte| *byte == block.fill));
                block.fill(fill);
            }
            _ => {
                let layout = Layout::from_size_align(size, 1 << dice(6)).unwrap();
                // SAFETY: the size is not zero.
                let at = unsafe { allocator.alloc(layout) };
                let mut block = Block { at, layout, fill };
                block.fill(fill);
                blocks.push(block);
            }
        }
    }
    for block in blocks {
        block.check();
        // SAFETY: with the layout of its allocation.
        unsafe { allocator.dealloc(block.at, block.layout) };
    }
}

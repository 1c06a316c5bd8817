//! A map by the numbers that Envoy gives to streams.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

/// A map by the number of a stream. Envoy counts streams, so nobody chooses their numbers, and no
/// hash has to protect the table.
pub(crate) type StreamMap<T> = HashMap<u32, T, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers that follow each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // The high bits tell entries apart, and the low ones their places.
        let spread = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}

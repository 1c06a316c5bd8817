//! Counts whose input excludes what was read from a cache and written to one, as Anthropic and
//! Bedrock report them: the filter adds up the three.

use crate::domain::usage::{Usage, sum};
use crate::protocol::document::Document;
use crate::protocol::llm::generation::{Generation, by_lifetime, keep, long_writes, raise};
use crate::protocol::paths::Field;

/// Such counts, as far as one document or head reports them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) cache_read: Option<u64>,
    pub(super) cache_write: Option<u64>,
    pub(super) cache_write_5m: Option<u64>,
    pub(super) cache_write_1h: Option<u64>,
}

impl Counts {
    /// The counts of a document.
    pub(super) fn of(document: &Document) -> Self {
        Self {
            input: document.count(Field::Input),
            output: document.count(Field::Output),
            cache_read: document.count(Field::CacheRead),
            cache_write: document.count(Field::CacheWrite),
            cache_write_5m: document.count(Field::CacheWrite5m),
            cache_write_1h: long_writes(document),
        }
    }

    /// True if neither input nor output is known.
    pub(super) fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// These counts in the normal form.
    pub(super) fn usage(self) -> Usage {
        let mut generation = Generation::default();
        self.report(&mut generation);
        generation.usage
    }

    /// Reports counts of which later ones may follow. A server may count as input first what it
    /// counts as read from the cache later: if later counts are not less together, they are the
    /// whole truth.
    pub(super) fn report(self, generation: &mut Generation) {
        let Generation { usage, parts, .. } = generation;
        let writes = |all: Option<u64>, of_5m, of_1h| all.max(sum(&[of_5m, of_1h]));
        let known = sum(&[
            parts.input,
            usage.cache_read,
            writes(parts.cache_write, parts.cache_write_5m, parts.cache_write_1h),
        ]);
        let told = sum(&[
            self.input,
            self.cache_read,
            writes(self.cache_write, self.cache_write_5m, self.cache_write_1h),
        ]);
        if told >= known {
            keep(&mut parts.input, self.input);
            keep(&mut usage.cache_read, self.cache_read);
        }
        self.put(generation, raise);
    }

    /// Reports what the provider bills, in the place of earlier counts.
    pub(super) fn report_billed(self, generation: &mut Generation) {
        self.put(generation, |place, billed| keep(place, billed.filter(|billed| *billed > 0)));
        self.put(generation, |place, billed| *place = place.or(billed));
    }

    fn put(self, generation: &mut Generation, put: fn(&mut Option<u64>, Option<u64>)) {
        let Generation { usage, parts, .. } = generation;
        put(&mut parts.input, self.input);
        put(&mut parts.cache_write, self.cache_write);
        put(&mut parts.cache_write_5m, self.cache_write_5m);
        put(&mut parts.cache_write_1h, self.cache_write_1h);
        put(&mut usage.output, self.output);
        put(&mut usage.cache_read, self.cache_read);
        (usage.cache_write_5m, usage.cache_write_1h) =
            by_lifetime(parts.cache_write, parts.cache_write_5m, parts.cache_write_1h);
        if parts.input.is_some() {
            let Usage { cache_read, cache_write_5m, cache_write_1h, .. } = *usage;
            usage.input = sum(&[parts.input, cache_read, cache_write_5m, cache_write_1h]);
        }
    }
}

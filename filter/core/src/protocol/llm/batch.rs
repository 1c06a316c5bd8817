//! The results of a provider's batch, which a client fetches as one file: JSON lines, or one JSON
//! text with an array of them. Each result holds the body of a response, which is read like any
//! other. A file without such bodies, such as a batch's input, has no results.

use crate::protocol::document::Document;
use crate::protocol::document_reader::DocumentReader;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::runs;
use crate::protocol::path_tree::PathTree;
use crate::protocol::paths::Field;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::json::Progress;

/// How a file of results is read.
#[derive(Debug)]
pub struct Batch {
    /// How the body of a response reports its usage.
    pub(super) format: &'static Format,
    /// Where the bodies of responses are.
    pub(super) bodies: &'static [&'static str],
}

/// One result.
#[derive(Debug)]
pub(crate) struct BatchResult {
    /// What number of body it is within the file, from 1.
    pub(crate) number: u64,
    pub(crate) generation: Generation,
}

/// Reads one file, chunk by chunk.
#[derive(Debug)]
pub(crate) struct BatchReader(Result<Decoder<Body>, ()>);

#[derive(Debug)]
struct Body {
    fold: fn(&mut Generation, &Document),
    reader: DocumentReader,
    /// The bodies of responses so far.
    bodies: u64,
    results: Vec<BatchResult>,
    results_max: usize,
    left_out: u64,
    /// Lines that are no JSON.
    damaged: u64,
}

impl BatchReader {
    /// Creates a reader, which keeps no more than so many results between two calls of
    /// [`BatchReader::take`].
    pub(crate) fn new(batch: &Batch, coding: ContentCoding, results_max: usize) -> Self {
        let Batch { format, bodies } = batch;
        let reader = DocumentReader::new(PathTree::within(bodies, format.paths));
        let (results, fold) = (Vec::new(), format.fold);
        let body = Body { fold, reader, bodies: 0, results, results_max, left_out: 0, damaged: 0 };
        Self(Decoder::new(coding, body).map_err(drop))
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        if let Ok(decoder) = &mut self.0 {
            decoder.limit(share);
        }
    }

    /// Reads the next bytes.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        if let Ok(decoder) = &mut self.0 {
            decoder.feed(chunk);
        }
    }

    /// Returns the results that have come since the last call, and how many it had to leave out.
    pub(crate) fn take(&mut self) -> (Vec<BatchResult>, u64) {
        let Ok(decoder) = &mut self.0 else { return Default::default() };
        let mut body = decoder.sink();
        let left_out = core::mem::take(&mut body.left_out);
        // Of a file of results each damaged line may have been one. A file without any is another.
        let damaged = if body.bodies > 0 { core::mem::take(&mut body.damaged) } else { 0 };
        (core::mem::take(&mut body.results), left_out.saturating_add(damaged))
    }

    /// Whether the end of the file could not be read: because of its coding or, of a file with
    /// results, because it is damaged or missing.
    pub(crate) fn is_broken(&mut self) -> bool {
        let Ok(decoder) = &mut self.0 else { return true };
        let is_broken = decoder.is_broken();
        let body = decoder.sink();
        let is_whole = body.reader.progress() != Progress::Failed && !body.reader.is_within();
        is_broken || (body.bodies > 0 && !is_whole)
    }
}

impl DecodedBytes for Body {
    fn decoded(&mut self, mut piece: &[u8]) {
        let Self { fold, reader, bodies, results, results_max, left_out, damaged } = self;
        while !piece.is_empty() {
            match reader.progress() {
                Progress::Open => {}
                Progress::Complete => reader.restart(),
                // The next line may be a result again.
                Progress::Failed => {
                    let Some(at) = memchr::memchr(b'\n', piece) else { return };
                    piece = piece.get(at..).unwrap_or_default();
                    *damaged = damaged.saturating_add(1);
                    reader.restart();
                }
            }
            let read = reader.feed(piece, &mut |document| {
                *bodies = bodies.saturating_add(1);
                let mut generation = Generation::default();
                generation.apply(*fold, document);
                runs::finish(&mut generation);
                // A batch holds a response when it is done, and a body here is whole.
                generation.stage = Stage::Final;
                let is_failed = document.has(Field::Error) || document.is(Field::Kind, "error");
                if is_failed && generation.usage.is_unknown() && generation.units.is_empty() {
                    // Nothing was generated. A body without counts may have some to bill.
                } else if results.len() < *results_max {
                    results.push(BatchResult { number: *bodies, generation });
                } else {
                    *left_out = left_out.saturating_add(1);
                }
            });
            piece = piece.get(read..).unwrap_or_default();
        }
    }
}

//! Reads what Envoy's own filter, `ai_protocol_manager`, has extracted:
//! `envoy.data.ai.v3.TokenUsage`, in typed dynamic metadata under `envoy.ai.token_usage` (Envoy
//! 1.40.0). Its counts are inclusive, like those of the normal form.
//!
//! Envoy's filter publishes at a clean end of a 2xx response without content coding, and nothing
//! for a stream that was cut off.

use crate::domain::usage::Usage;
use crate::wire::protobuf::{Field, field};

/// The field numbers of `TokenUsage`, and behind them those of its details.
mod number {
    pub(super) const INPUT_TOKENS: u64 = 3;
    pub(super) const OUTPUT_TOKENS: u64 = 4;
    pub(super) const INPUT_TOKEN_DETAILS: u64 = 6;
    pub(super) const OUTPUT_TOKEN_DETAILS: u64 = 7;
    pub(super) const PROVIDER_TOTAL_TOKENS: u64 = 8;
    pub(super) const EXTRACTION_STATUS: u64 = 9;
    pub(super) const CACHED_TOKENS: u64 = 1;
    pub(super) const CACHE_CREATION_TOKENS: u64 = 2;
    pub(super) const REASONING_TOKENS: u64 = 1;
}

/// `ExtractionStatus.COMPLETE`.
const COMPLETE: u64 = 1;

/// The counts of a record whose status is complete.
pub(crate) fn read_token_usage(record: &[u8]) -> Option<Usage> {
    let mut usage = Usage::default();
    let mut status = None;
    each(record, |found, value| match (found, value) {
        (number::INPUT_TOKENS, Field::Bytes(count)) => usage.input = wrapped(count),
        (number::OUTPUT_TOKENS, Field::Bytes(count)) => usage.output = wrapped(count),
        (number::PROVIDER_TOTAL_TOKENS, Field::Bytes(count)) => {
            usage.provider_total = wrapped(count);
        }
        (number::INPUT_TOKEN_DETAILS, Field::Bytes(details)) => {
            usage.cache_read = detail(details, number::CACHED_TOKENS);
            usage.cache_write_5m = detail(details, number::CACHE_CREATION_TOKENS);
        }
        (number::OUTPUT_TOKEN_DETAILS, Field::Bytes(details)) => {
            usage.reasoning = detail(details, number::REASONING_TOKENS);
        }
        (number::EXTRACTION_STATUS, Field::Varint(value)) => status = Some(value),
        _ => {}
    })?;
    (status == Some(COMPLETE) && !usage.is_unknown()).then_some(usage)
}

/// Reads a count from the details.
fn detail(details: &[u8], number: u64) -> Option<u64> {
    let mut count = None;
    each(details, |found, value| {
        if let (true, Field::Bytes(wrapper)) = (found == number, value) {
            count = wrapped(wrapper);
        }
    })?;
    count
}

/// `google.protobuf.UInt64Value`: an empty message is zero.
fn wrapped(wrapper: &[u8]) -> Option<u64> {
    let mut count = 0;
    each(wrapper, |number, value| {
        if let (1, Field::Varint(value)) = (number, value) {
            count = value;
        }
    })?;
    Some(count)
}

/// Calls `show` with every field of a message; `None` if the message cannot be read to its end.
fn each<'a>(message: &'a [u8], mut show: impl FnMut(u64, Field<'a>)) -> Option<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let (number, value, behind) = field(rest)?;
        show(number, value);
        rest = behind;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{Usage, read_token_usage};

    #[test]
    fn a_complete_record_is_read_and_any_other_is_not() {
        // As Envoy 1.40.0 published it for a chat completion.
        let complete = "080112056770742d351a0308e807220308c8012a0308b00932090a0308ac02120208323a040a020850420308b0094801";
        let usage = Usage {
            input: Some(1000),
            output: Some(200),
            cache_read: Some(300),
            cache_write_5m: Some(50),
            reasoning: Some(80),
            provider_total: Some(1200),
            ..Usage::default()
        };
        let zero = Usage { input: Some(0), ..Usage::default() };
        for (record, read) in [
            (complete, Some(usage)),
            (&complete[..complete.len() - 4], None),
            (&complete[..complete.len() - 2], None),
            ("1a004801", Some(zero)),
            ("1a004802", None),
            ("4801", None),
            ("", None),
            ("ff", None),
        ] {
            let bytes: Vec<u8> = (0..record.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&record[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(read_token_usage(&bytes), read, "{record}");
        }
    }
}

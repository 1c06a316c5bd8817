//! Completes counts of OpenAI's shape. Servers with this shape disagree on what a whole includes:
//! some count cache reads, cache writes or reasoning beside `prompt_tokens` and `completion_tokens`,
//! and some leave out what they generated in secret. The total tells, whatever the server is called.
//!
//! Where several readings fit, and where none does, the dearest one counts: the operator's cost must
//! not come out too low.

use crate::domain::usage::Usage;

/// Gives what the total holds beyond input and output to the one that is not told, else to the
/// output, the dearer one. Returns whether there was something, so that the counts contradict each
/// other.
pub(crate) fn fill(usage: &mut Usage) -> bool {
    let rest = usage.provider_total.unwrap_or(0).saturating_sub(usage.total());
    if rest == 0 || usage.is_unknown() {
        return false;
    }
    let side = if usage.input.is_none() { &mut usage.input } else { &mut usage.output };
    *side = Some(side.unwrap_or(0).saturating_add(rest));
    true
}

/// Makes input and output include all their parts. Returns whether the counts contradict each other.
pub(crate) fn settle(usage: &mut Usage) -> bool {
    let (Some(input), Some(output)) = (usage.input, usage.output) else { return fill(usage) };
    let cache_read = usage.cache_read.unwrap_or(0);
    let cache_write =
        usage.cache_write_5m.unwrap_or(0).saturating_add(usage.cache_write_1h.unwrap_or(0));
    let reasoning = usage.reasoning.unwrap_or(0);
    let cache = cache_read.saturating_add(cache_write);
    // A part that is larger than its whole is beside it, whatever the total says.
    let (is_cache_beside, is_reasoning_beside) = (cache > input, reasoning > output);
    let readings =
        [(0, 0), (0, reasoning), (cache, reasoning), (cache, 0), (cache_read, 0), (cache_write, 0)];
    let possible = readings.into_iter().filter(|(of_input, of_output)| {
        (!is_cache_beside || *of_input == cache)
            && (!is_reasoning_beside || *of_output == reasoning)
    });
    let plus = |(of_input, of_output): (u64, u64)| {
        (input.saturating_add(of_input), output.saturating_add(of_output))
    };
    let beside = plus((
        if is_cache_beside { cache } else { 0 },
        if is_reasoning_beside { reasoning } else { 0 },
    ));
    let Some(total) = usage.provider_total.filter(|total| *total > 0) else {
        (usage.input, usage.output) = (Some(beside.0), Some(beside.1));
        return false;
    };
    let sum = |(input, output): (u64, u64)| input.saturating_add(output);
    let fitting = possible.map(plus).find(|reading| sum(*reading) == total);
    let (input, output) = fitting.unwrap_or_else(|| {
        // What is left of the total was generated, and hidden.
        let hidden = total.saturating_sub(sum(beside));
        (beside.0, beside.1.saturating_add(hidden))
    });
    (usage.input, usage.output) = (Some(input), Some(output));
    input.saturating_add(output) != total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input, output, cache reads, cache writes, reasoning, total; then input and output as they must
    /// be, and whether the counts contradict each other.
    type Row = ([u64; 6], (u64, u64), bool);

    const ROWS: &[(&str, Row)] = &[
        ("all within", ([100, 20, 40, 10, 5, 120], (100, 20), false)),
        ("reasoning beside", ([100, 20, 40, 0, 5, 125], (100, 25), false)),
        ("cache reads and writes beside", ([100, 20, 50_000, 30, 0, 50_150], (50_130, 20), false)),
        ("only cache reads beside", ([100, 20, 60, 30, 0, 180], (160, 20), false)),
        ("only cache writes beside", ([100, 20, 60, 30, 0, 150], (130, 20), false)),
        ("cache and reasoning beside", ([100, 20, 60, 30, 7, 217], (190, 27), false)),
        ("a remainder is hidden output", ([3, 7, 0, 0, 0, 298], (3, 295), false)),
        ("a remainder beside reasoning", ([3, 7, 0, 0, 2, 298], (3, 295), false)),
        ("as much cached as reasoned: the dearer", ([100, 20, 6, 0, 6, 126], (100, 26), false)),
        ("without a total all is within", ([100, 20, 40, 0, 5, 0], (100, 20), false)),
        ("without a total, more cached than read", ([100, 20, 140, 0, 5, 0], (240, 20), false)),
        ("without a total, more reasoned than written", ([1, 20, 0, 0, 50, 0], (1, 70), false)),
        (
            "the total says within, the part does not fit",
            ([7, 3256, 0, 0, 193_944, 3263], (7, 197_200), true),
        ),
        ("the total is less than the sum", ([100, 20, 0, 0, 0, 90], (100, 20), true)),
        ("numbers without end", ([u64::MAX, u64::MAX, 9, 9, 9, 1], (u64::MAX, u64::MAX), true)),
    ];

    #[test]
    fn the_total_tells_what_is_within_and_what_is_beside() {
        for (
            name,
            ([input, output, cache_read, writes, reasoning, total], wanted, is_inconsistent),
        ) in ROWS
        {
            let some = |count: &u64| Some(*count).filter(|count| *count > 0);
            let mut usage = Usage {
                input: Some(*input),
                output: Some(*output),
                cache_read: some(cache_read),
                cache_write_5m: some(writes),
                reasoning: some(reasoning),
                provider_total: some(total),
                ..Usage::default()
            };
            assert_eq!(settle(&mut usage), *is_inconsistent, "{name}");
            assert_eq!((usage.input, usage.output), (Some(wanted.0), Some(wanted.1)), "{name}");
        }
    }

    #[test]
    fn what_the_total_holds_beside_a_count_alone_is_the_other_one() {
        for (told, total, wanted, is_inconsistent) in [
            ((Some(5), None), Some(9), (Some(5), Some(4)), true),
            ((None, Some(5)), Some(120_005), (Some(120_000), Some(5)), true),
            ((Some(5), None), Some(5), (Some(5), None), false),
            ((Some(5), None), None, (Some(5), None), false),
            ((None, None), Some(9), (None, None), false),
        ] {
            let (input, output) = told;
            let mut usage = Usage { input, output, provider_total: total, ..Usage::default() };
            assert_eq!(settle(&mut usage), is_inconsistent, "{told:?}");
            assert_eq!((usage.input, usage.output), wanted, "{told:?}");
        }
    }
}

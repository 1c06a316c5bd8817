//! The built module itself: what it imports from its host, and how large it is.

use anyhow::ensure;

use crate::release_module;

/// The largest size of the module, in bytes. Every Envoy VM compiles it and Istio pulls it into
/// each sidecar, so growth is a decision: whoever raises this limit says what it pays for.
///
/// 1 MiB paid for products of all types and provider cost; 448 KiB for guards, with their options
/// and events, and for the defences against hostile clients; 32 KiB for answers that are told apart
/// by their origin, and for refusals that browsers understand; 48 KiB for every run of a model that a
/// response reports, for counts that are told within or beside one another, for tiers, modifiers and
/// names as providers tell them; 128 KiB for sellers under any name, for native formats and own paths,
/// for units beside tokens and for costs that providers report, and, 40 KiB of these, for forms, speech,
/// images, videos and WebSockets; 80 KiB for truths that take the place of what was billed, for results
/// of batches, and for prices by location, hour and thinking; 40 KiB for counts, words and requests
/// that cannot be read for certain, and for what providers bill under names that nobody knows; 32 KiB
/// for batches and lines of the log that are signed, for calls priced by the configuration under which
/// they came, and for signs of life; 72 KiB for payments on the wire, for ids of traces and logs, and
/// for the control listener; 4 KiB for balances.
const MODULE_BYTES_MAX: u64 = 1716 * 1024;

#[test]
fn the_module_imports_only_what_every_host_has_and_stays_small() -> anyhow::Result<()> {
    let module = agent_meter::check::module(&release_module()?)?;
    println!("{module}");
    let size_bytes = module.size_bytes;
    ensure!(
        size_bytes < MODULE_BYTES_MAX,
        "the module has {size_bytes} bytes; the budget is {MODULE_BYTES_MAX}"
    );
    Ok(())
}

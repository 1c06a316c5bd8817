//! `agent-meter prices import`: makes a rate card of a public price list, digit for digit.
//!
//! It reads prices as text and keeps them decimal: no price passes through a float. It leaves out
//! what a card cannot express, and reports it, so that nobody pays a price that the list does not
//! name. Only what has more places than the filter takes is rounded to these, and reported too.

mod builder;
mod card;
mod check;
mod explain;
mod genai_prices;
mod list;
mod litellm;
mod models_dev;
mod report;
mod source;
mod wanted;

use std::path::Path;

use anyhow::Context;

use self::builder::Builder;
pub use self::builder::Imported;
pub use self::card::Card;
pub use self::check::{Change, Difference, differences};
pub use self::explain::{Applied, ExampleLine, Explanation, Question, explain};
pub use self::report::{LeftOut, Report};
pub use self::source::{Edition, Source};
pub use self::wanted::Wanted;

/// Reads a price list from a file.
///
/// # Errors
///
/// Names the file and the place of what could not be read.
pub fn import(
    source: Source,
    file: &Path,
    wanted: &Wanted,
    edition: Edition,
) -> anyhow::Result<Imported> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", name()))?;
    import_text(source, &text, wanted, edition).with_context(name)
}

/// Reads a price list.
///
/// # Errors
///
/// Names the place of what could not be read.
pub fn import_text(
    source: Source,
    text: &str,
    wanted: &Wanted,
    edition: Edition,
) -> anyhow::Result<Imported> {
    // That list is searched in its order.
    let mut builder = Builder::new(wanted, source == Source::GenaiPrices);
    match source {
        Source::Litellm => litellm::read(text, &mut builder),
        Source::ModelsDev => models_dev::read(text, &mut builder),
        Source::GenaiPrices => genai_prices::read(text, &mut builder),
    }
    .with_context(|| format!("expected a list of {}", source.name()))?;
    builder.finish(source, edition)
}

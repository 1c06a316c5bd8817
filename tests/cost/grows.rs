//! Holds that no cost grows faster than what there is more of, and that what nothing changes costs
//! nothing: see [`agent_meter_cost::growth`]. `make growth` prints the table, with larger sizes
//! too, and draws `filter/growth.svg`.

use std::path::Path;

use agent_meter_cost::growth::{ALL, exponent};
use agent_meter_cost::plot::plot;
use agent_meter_cost::vm::{Program, release_module};
use anyhow::ensure;

#[test]
fn no_cost_grows_faster_than_what_there_is_more_of() -> anyhow::Result<()> {
    let program = Program::load(&release_module()?)?;
    let is_whole = std::env::var_os("GROWTH").is_some();
    let (mut steep, mut rows) = (Vec::new(), Vec::new());
    println!("| more | size | fuel of each | exponent |\n|---|---|---|---|");
    for axis in ALL {
        let (mut before, mut points) = (None, Vec::new());
        let larger = if is_whole { axis.larger } else { &[] };
        for &size in axis.sizes.iter().chain(larger) {
            let point = (size, axis.fuel(&program, size)?);
            let grows = before.map(|before| exponent(before, point));
            let text = grows.map_or(String::new(), |exponent| format!("{exponent:.2}"));
            println!("| {} | {} | {} ({}) | {text} |", axis.name, point.0, point.1, axis.unit);
            if grows.is_some_and(|exponent| exponent > axis.exponent_max) {
                steep.push(format!("{} at {}: {text}", axis.name, point.0));
            }
            before = Some(point);
            points.push(point);
        }
        rows.push((*axis, points));
    }
    if is_whole {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filter/growth.svg");
        std::fs::write(file, plot(&rows))?;
    }
    ensure!(steep.is_empty(), "costs grow faster than they may:\n{}", steep.join("\n"));
    Ok(())
}

//! Draws how costs grow: a small diagram for each axis, both scales logarithmic.

use maud::{Markup, PreEscaped, html};

use crate::growth::{Axis, exponent};

const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 150.0;
const COLUMNS: usize = 3;
/// Of a diagram: where its lines begin and end.
const LEFT: f64 = 20.0;
const RIGHT: f64 = 225.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 115.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600}\
    .soft{fill:#59636e}.end{text-anchor:end}.frame{stroke:#d1d9e0;fill:none}\
    .linear{stroke:#d1d9e0;stroke-dasharray:3 3;fill:none}\
    .cost{stroke:#0969da;stroke-width:2;fill:none}circle{fill:#0969da}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}\
    .frame,.linear{stroke:#3d444d}.cost{stroke:#4493f8}circle{fill:#4493f8}}";

/// The picture of these axes, each with its sizes and their fuel, as SVG.
#[must_use]
pub fn plot(rows: &[(Axis, Vec<(u64, u64)>)]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a few diagrams")]
    let place = |at: usize| ((at % COLUMNS) as f64 * WIDTH, (at / COLUMNS) as f64 * HEIGHT);
    let (_, last) = place(rows.len().saturating_sub(1));
    let (width, _) = place(COLUMNS - 1);
    let markup = html! {
        svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc"
            viewBox={ "0 0 " (width + WIDTH) " " (last + HEIGHT) } {
            title id="title" { "How the costs of agent-meter grow" }
            desc id="desc" {
                @for (axis, points) in rows { (axis.name) ": exponent at most " (steepest(points)) ". " }
            }
            style { (PreEscaped(STYLE)) }
            @for (at, (axis, points)) in rows.iter().enumerate() {
                g transform=(format!("translate({} {})", place(at).0, place(at).1)) {
                    (diagram(axis, points))
                }
            }
        }
    };
    format!("{}\n", markup.into_string())
}

fn diagram(axis: &Axis, points: &[(u64, u64)]) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "a few pixels")]
    let logs: Vec<(f64, f64)> = points
        .iter()
        .map(|(size, fuel)| ((*size as f64).log10(), (*fuel as f64).log10()))
        .collect();
    let first = logs.first().copied().unwrap_or_default();
    let last = logs.last().copied().unwrap_or_default();
    // A cost that grows with the size goes from corner to corner.
    let decades = (last.0 - first.0).max(1.0);
    let at = |(size, fuel): (f64, f64)| {
        let x = LEFT + (size - first.0) / decades * (RIGHT - LEFT);
        (x, BOTTOM - (fuel - first.1) / decades * (BOTTOM - TOP))
    };
    let dots: Vec<(f64, f64)> = logs.iter().copied().map(at).collect();
    let line: Vec<String> = dots.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    html! {
        text.head x=(LEFT) y="16" { (axis.name) }
        text.soft x=(LEFT) y="32" { "each " (axis.unit) ", exponent " (steepest(points)) }
        path.frame d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
        path.linear d={ "M" (LEFT) " " (BOTTOM) "L" (RIGHT) " " (TOP) } {}
        polyline.cost points=(line.join(" ")) {}
        @for (x, y) in &dots { circle cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="3" {} }
        text.soft x=(LEFT) y=(BOTTOM + 16.0) { (points.first().map_or(0, |(size, _)| *size)) }
        text.soft.end x=(RIGHT) y=(BOTTOM + 16.0) { (points.last().map_or(0, |(size, _)| *size)) }
    }
}

/// The largest exponent between two sizes.
fn steepest(points: &[(u64, u64)]) -> String {
    let exponents = points.windows(2).map(|pair| exponent(pair[0], pair[1]));
    format!("{:.2}", exponents.fold(0.0, f64::max))
}

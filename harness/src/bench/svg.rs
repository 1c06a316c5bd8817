//! Draws what each listener adds to the CPU of a call, from the JSON of a run: a horizontal bar with its
//! interval for each, in colours for light and dark.

use anyhow::Context;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;

use super::ratios::Interval;
use super::variant::Variant;

const WIDTH: f64 = 780.0;
/// Where bars begin, and how far the longest interval may reach; figures stand behind it.
const LEFT: f64 = 160.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 66.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
/// At most so many lines that tell the scale, beside the one at zero.
const LINES_MAX: f64 = 6.0;
/// The distances of those lines that read well, in microseconds.
const STEPS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

const STYLE: &str = "\
svg { font: 13px system-ui, sans-serif; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --ours: #0969da; --other: #818b98; --process: #bc4c00 }
@media (prefers-color-scheme: dark) { svg { --ink: #f0f6fc; --soft: #9198a1; --line: #3d444d; --ours: #4493f8; --other: #7d8590; --process: #db6d28 } }
text { fill: var(--ink) } .soft { fill: var(--soft) } .end { text-anchor: end } .head { font-weight: 600 } .middle { text-anchor: middle }
.scale { stroke: var(--line) } .interval { stroke: var(--ink); fill: none }
.ours { fill: var(--ours) } .other { fill: var(--other) } .process { fill: var(--process) }";

/// What is read of the JSON of `agent-meter bench`.
#[derive(Debug, Deserialize)]
struct Run {
    envoy: String,
    rounds: u32,
    requests: u32,
    scenario: String,
    listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    listener: String,
    added_cpu_us: Median,
    added_cpu_with_processor_us: Median,
    added_cpu_interval_us: Interval,
}

#[derive(Debug, Deserialize)]
struct Median {
    median: f64,
}

/// The SVG of a run; an error if the JSON has no part `calls`.
pub(super) fn draw(json: &str) -> anyhow::Result<String> {
    let run = serde_json::from_str(json)
        .context("expected what `agent-meter bench --json` prints, with the part `calls`")?;
    Ok(chart(&run).into_string())
}

fn chart(run: &Run) -> Markup {
    let reference = Variant::NoFilter.name();
    let rows: Vec<&Listener> =
        run.listeners.iter().filter(|row| row.listener != reference).collect();
    let longest = rows.iter().map(|row| row.added_cpu_interval_us.high).fold(1.0, f64::max);
    let of_us = |us: f64| LEFT + us.clamp(0.0, longest) / longest * (RIGHT - LEFT);
    let step = STEPS.into_iter().find(|step| longest / step <= LINES_MAX).unwrap_or(longest);
    let lines = std::iter::successors(Some(0.0), |us| Some(us + step));
    let lines: Vec<f64> = lines.take_while(|us| *us <= longest).collect();
    let (mut bottom, mut tops) = (TOP, Vec::new());
    for _ in &rows {
        tops.push(bottom);
        bottom += ROW;
    }
    let height = bottom + 48.0;
    let Run { envoy, rounds, requests, scenario, .. } = run;
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
            aria-labelledby="title desc" {
            title id="title" { "CPU that a filter adds to an MCP call in Envoy" }
            desc id="desc" {
                "Microseconds of CPU for each call, the median with its interval of 95 %: "
                (rows.iter().map(|row| spoken(row)).collect::<Vec<_>>().join("; ")) "."
            }
            style { (PreEscaped(STYLE)) }
            text.head x="0" y="18" { "CPU added to an MCP call, µs" }
            text.soft x="0" y="38" {
                "Envoy " (envoy) ", 1 worker; " (rounds) " rounds of " (requests) " calls, " (scenario)
                "; medians with intervals of 95 %"
            }
            @for us in &lines {
                line.scale x1=(px(of_us(*us))) x2=(px(of_us(*us))) y1=(px(TOP - 8.0)) y2=(px(bottom)) {}
                text.soft.middle x=(px(of_us(*us))) y=(px(bottom + 16.0)) { (format!("{us:.0}")) }
            }
            @for (row, top) in rows.iter().zip(tops) { (bar(row, top, of_us)) }
            rect.process x="0" y=(px(bottom + 28.0)) width="10" height="10" {}
            text.soft x="16" y=(px(bottom + 38.0)) {
                "the external processor's own process"
            }
        }
    }
}

/// One listener: Envoy's part of the bar, the external processor's, the interval of both, the figure.
fn bar(row: &Listener, top: f64, of_us: impl Fn(f64) -> f64) -> Markup {
    let Listener { listener, added_cpu_us, added_cpu_with_processor_us, .. } = row;
    let Interval { low, high, .. } = row.added_cpu_interval_us;
    let (envoy, whole) = (added_cpu_us.median, added_cpu_with_processor_us.median);
    let kind = if is_ours(listener) { "ours" } else { "other" };
    let middle = top + BAR / 2.0;
    let (from, to) = (of_us(low), of_us(high));
    let ends = [from, to].map(|x| format!("M{x:.1} {:.1}v6", middle - 3.0)).concat();
    html! {
        text.end x=(px(LEFT - 10.0)) y=(px(top + 11.5)) { (listener) }
        rect class=(kind) x=(px(LEFT)) y=(px(top)) width=(px(of_us(envoy) - LEFT)) height=(px(BAR)) {}
        rect.process x=(px(of_us(envoy))) y=(px(top)) height=(px(BAR))
            width=(px((of_us(whole) - of_us(envoy)).max(0.0))) {}
        path.interval d={ "M" (px(from)) " " (px(middle)) "H" (px(to)) (ends) } {}
        text x=(px(RIGHT + 10.0)) y=(px(top + 11.5)) {
            (figure(whole)) " (" (figure(low)) " to " (figure(high)) ")"
        }
    }
}

fn is_ours(listener: &str) -> bool {
    let ours = [
        Variant::AgentMeter,
        Variant::Unmatched,
        Variant::Beside,
        Variant::Guarded,
        Variant::Reserving,
    ];
    ours.into_iter().any(|variant| variant.name() == listener)
}

fn spoken(row: &Listener) -> String {
    let Listener { listener, added_cpu_us, added_cpu_with_processor_us, .. } = row;
    let Interval { low, high, .. } = row.added_cpu_interval_us;
    let (envoy, whole) = (added_cpu_us.median, added_cpu_with_processor_us.median);
    let part = match listener == Variant::ExtProc.name() {
        true => format!(", {} of it in Envoy", figure(envoy)),
        false => String::new(),
    };
    format!("{listener} {} ({} to {}){part}", figure(whole), figure(low), figure(high))
}

fn figure(us: f64) -> String {
    format!("{us:.1}")
}

fn px(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> String {
        let row = |listener: &str, envoy: f64, whole: f64, low: f64, high: f64| {
            json!({
                "listener": listener,
                "added_cpu_us": { "q1": low, "median": envoy, "q3": high },
                "added_cpu_with_processor_us": { "q1": low, "median": whole, "q3": high },
                "added_cpu_interval_us": { "low": low, "median": whole, "high": high },
            })
        };
        let listeners = [
            row("no filter", 0.0, 0.0, 0.0, 0.0),
            row("no filter again", -0.5, -0.5, -2.0, 1.0),
            row("agent-meter", 50.0, 50.0, 45.0, 60.0),
            row("ext_proc", 100.0, 180.0, 170.0, 200.0),
            row("<other> & more", 20.0, 20.0, 10.0, 30.0),
        ];
        let run = json!({
            "envoy": "1.40.0", "rounds": 14, "requests": 1000, "scenario": "json",
            "listeners": listeners, "latency": null,
        });
        run.to_string()
    }

    #[test]
    fn each_listener_has_a_bar_of_its_length_and_says_its_figure() {
        let svg = draw(&run()).expect("a run");
        // 430 units are the 200 us of the longest interval.
        for part in [
            r#"<rect class="ours" x="160.0" y="92.0" width="107.5" height="14.0"></rect>"#,
            r#"<rect class="other" x="160.0" y="118.0" width="215.0" height="14.0"></rect>"#,
            r#"<rect class="process" x="375.0" y="118.0" height="14.0" width="172.0"></rect>"#,
            r#"d="M525.5 125.0H590.0M525.5 122.0v6M590.0 122.0v6""#,
            "ext_proc 180.0 (170.0 to 200.0), 100.0 of it in Envoy; ",
            ">50.0 (45.0 to 60.0)</text>",
            ">-0.5 (-2.0 to 1.0)</text>",
            "&lt;other&gt; &amp; more",
            "prefers-color-scheme: dark",
            r#"<title id="title">"#,
        ] {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
        assert!(!svg.contains(">no filter<"), "the reference adds nothing: {svg}");
        assert!(!svg.contains(r#"width="-"#), "{svg}");
    }

    #[test]
    fn what_is_no_run_is_refused() {
        for json in ["", "{}", r#"{"latency":{"rounds":1},"listeners":[]}"#] {
            let error = draw(json).expect_err(json).to_string();
            assert!(error.contains("with the part `calls`"), "{error}");
        }
    }
}

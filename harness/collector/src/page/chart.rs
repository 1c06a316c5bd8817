//! Charts as inline SVG: bars that stretch with the page, with their labels as text beside them.
//! Heights are decimal shares of the largest amount.

use maud::{Markup, html};
use rust_decimal::Decimal;

use crate::page::amount;
use crate::query::rfc3339;
use crate::report::overview::Sums;

/// The height of a chart and the width of a step, in units of the drawing.
const HEIGHT: i64 = 100;
const STEP: i64 = 12;
/// The width of a bar of a list.
const WIDTH: i64 = 1000;

/// A share of the largest in whole units; at least one of what is above zero.
fn length(amount: Decimal, most: Decimal, units: i64) -> i64 {
    if amount <= Decimal::ZERO || most <= Decimal::ZERO {
        return 0;
    }
    let share = amount.checked_div(most).unwrap_or(Decimal::ONE).min(Decimal::ONE);
    let length = share.checked_mul(units.into()).unwrap_or_default().round();
    i64::try_from(length).unwrap_or(units).max(1)
}

/// Revenue and provider cost in one currency over the steps of a period.
pub(super) fn course(steps: &[Sums], currency: &str, from_ms: i64, step_ms: i64) -> Markup {
    let most = steps.iter().flat_map(|sums| [sums.revenue(), sums.cost()]).max();
    let most = most.unwrap_or_default();
    let width = i64::try_from(steps.len()).unwrap_or(1) * STEP;
    let begin = |at: usize| {
        let at = i64::try_from(at).unwrap_or_default();
        label(from_ms.saturating_add(at.saturating_mul(step_ms)), step_ms)
    };
    let (first, middle, last) =
        (begin(0), begin(steps.len() / 2), begin(steps.len().saturating_sub(1)));
    html! {
        figure.chart {
            div.scale aria-hidden="true" {
                span { (amount::rounded(most, currency)) " " (currency) } span { "0" }
            }
            svg viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("Revenue and provider cost in {currency} by time")) {
                @for (at, sums) in (0_i64..).zip(steps) {
                    @let [revenue, cost] = [sums.revenue(), sums.cost()];
                    @let heights = [revenue, cost].map(|amount| length(amount, most, HEIGHT));
                    g {
                        title {
                            (begin(usize::try_from(at).unwrap_or_default())) ": revenue "
                            (amount::rounded(revenue, currency)) ", cost "
                            (amount::rounded(cost, currency)) " " (currency)
                        }
                        @for ((class, offset), height) in [("revenue", 1), ("cost", 6)].iter().zip(heights) {
                            rect class=(class) x=(at * STEP + offset) y=(HEIGHT - height) width="5"
                                height=(height) {}
                        }
                    }
                }
            }
            div.times aria-hidden="true" {
                span { (first) }
                @if steps.len() > 2 { span { (middle) } }
                @if steps.len() > 1 { span { (last) } }
            }
        }
    }
}

/// When a step begins: the day, or also the time where a step is shorter.
pub(super) fn label(ms: i64, step_ms: i64) -> String {
    let text = amount::time(&rfc3339(ms));
    let digits = if step_ms < 24 * 3_600_000 { 16 } else { 10 };
    text.get(..digits).unwrap_or(&text).to_owned()
}

/// A bar as long as its share of the largest.
pub(super) fn bar(amount: Decimal, most: Decimal, class: &str) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} 8")) preserveAspectRatio="none" aria-hidden="true" {
            rect.ground width=(WIDTH) height="8" {}
            rect class=(class) width=(length(amount, most, WIDTH)) height="8" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_a_share_of_the_largest_and_never_longer() {
        let most = Decimal::from(200);
        let lengths = ["0", "-5", "0.0001", "100", "200", "79228162514264337593543950335"];
        let lengths = lengths.map(|amount| length(amount.parse().expect("a decimal"), most, 100));
        assert_eq!(lengths, [0, 0, 1, 50, 100, 100]);
        assert_eq!(length(most, Decimal::ZERO, 100), 0);
    }
}

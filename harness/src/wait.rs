//! Waits for a condition with a deadline. Nothing else in the harness polls.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep, timeout_at};

/// The first pause between two tries; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Calls `condition` until it returns `Ok`, for at most `limit`.
///
/// `what` names the awaited state; the error contains it, and the last error of `condition`.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    let mut last = anyhow!("no answer");
    loop {
        match timeout_at(deadline, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last.context(format!("{what}: not within {limit:?}"))),
        }
        if Instant::now() + pause >= deadline {
            return Err(last.context(format!("{what}: not within {limit:?}")));
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_names_the_awaited_state_and_the_last_reason() {
        let mut tries = 0;
        let error = until::<()>(Duration::from_millis(200), "three apples", async || {
            tries += 1;
            Err(anyhow!("only {tries}"))
        })
        .await
        .expect_err("never true");
        let text = format!("{error:#}");
        assert!(text.starts_with("three apples: not within 200ms: only "), "{text}");
        assert!(tries > 3, "tried {tries} times");
    }

    #[tokio::test]
    async fn returns_the_value_once_the_condition_holds() {
        let mut tries = 0;
        let value = until(Duration::from_secs(5), "a third try", async || {
            tries += 1;
            if tries < 3 { Err(anyhow!("try {tries}")) } else { Ok(tries) }
        })
        .await
        .expect("holds at the third try");
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn a_condition_that_hangs_is_cut_at_the_deadline() {
        let hang = async || std::future::pending::<anyhow::Result<()>>().await;
        let error = until(Duration::from_millis(50), "silence", hang).await.expect_err("hangs");
        assert_eq!(format!("{error:#}"), "silence: not within 50ms: no answer");
    }
}

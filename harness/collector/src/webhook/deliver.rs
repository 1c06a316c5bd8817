//! Posts queued events. Each webhook has a task of its own, so that a receiver that hangs delays no
//! other.
//!
//! A task sends an event until it has written down an answer of 2xx. If the collector ends between
//! the two, the next one sends the event again, under the same `webhook-id`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::http_client::{self, HttpClient, ms, retry_after};
use crate::ledger::Ledger;
use crate::webhook::queue::{self, Outcome, Waiting};
use crate::webhook::sign::message_id;
use crate::webhook::{Retry, Secret, Webhook, Webhooks};

/// Requests to one webhook at once.
const IN_FLIGHT_MAX: u32 = 4;
/// The longest sleep, so that a clock that is set back delays no event for long.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long after its last try is due the collector gives up an event without trying.
const GIVE_UP_SLACK: Duration = Duration::from_secs(3600);
/// How long to wait when the ledger fails.
const LEDGER_RETRY: Duration = Duration::from_secs(5);

/// The tasks that post. Dropped without `stop`, they end at once.
#[derive(Debug)]
pub(crate) struct Deliveries {
    queued: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Deliveries {
    /// Goes on with the events that wait in the ledger; an error if a webhook needs https and this
    /// machine trusts no authority.
    pub(crate) fn start(ledger: &Ledger, webhooks: &Webhooks) -> anyhow::Result<Self> {
        let (queued, (stop, stopped)) = (Arc::new(Notify::new()), watch::channel(false));
        let secure = webhooks.hooks.iter().any(|hook| hook.url.scheme() == "https");
        let client = http_client::client(secure, "webhooks")?;
        let mut tasks = JoinSet::new();
        for webhook in &webhooks.hooks {
            let uri = webhook.url.as_str().parse();
            let worker = Worker {
                ledger: ledger.clone(),
                uri: uri.with_context(|| format!("the URL of {webhook}"))?,
                webhook: webhook.clone(),
                secret: webhooks.secret.clone(),
                retry: webhooks.retry,
                client: client.clone(),
            };
            tasks.spawn(worker.work(queued.clone(), stopped.clone()));
        }
        Ok(Deliveries { queued, stop, tasks })
    }

    /// Wakes up the tasks when something is queued.
    pub(crate) fn queued(&self) -> Arc<Notify> {
        self.queued.clone()
    }

    /// Writes down the outcome of the requests under way, begins no other, and ends.
    pub(crate) async fn stop(mut self) {
        // Without receivers the tasks have ended.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Worker {
    ledger: Ledger,
    uri: Uri,
    webhook: Webhook,
    secret: Secret,
    retry: Retry,
    client: HttpClient,
}

impl Worker {
    async fn work(self, queued: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
        let worker = Arc::new(self);
        loop {
            // Subscribes before it reads the queue, so that an event queued in between wakes the
            // task up.
            let woken = queued.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let sleep = worker.clone().round().await.unwrap_or_else(|error| {
                tracing::error!(webhook = %worker.webhook, "ledger failed: {error:#}");
                LEDGER_RETRY
            });
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = &mut woken => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Sends the events that are due, and returns how long it is until the next one is due.
    async fn round(self: Arc<Self>) -> anyhow::Result<Duration> {
        let reader = self.clone();
        let due = tokio::task::spawn_blocking(move || {
            let now_ms = Utc::now().timestamp_millis();
            let end_ms = now_ms - ms(reader.retry.horizon.saturating_add(GIVE_UP_SLACK));
            queue::give_up(&reader.ledger, end_ms)?;
            queue::due(&reader.ledger, &reader.webhook.name, now_ms, IN_FLIGHT_MAX)
        });
        let due = due.await??;
        let settled = join_all(due.into_iter().map(|waiting| self.clone().deliver(waiting)));
        settled.await.into_iter().collect::<anyhow::Result<()>>()?;
        let reader = self.clone();
        let next = tokio::task::spawn_blocking(move || {
            queue::next_due(&reader.ledger, &reader.webhook.name)
        });
        let wait_ms = next.await??.map(|due_ms| due_ms - Utc::now().timestamp_millis());
        let wait = wait_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        Ok(wait.map_or(SLEEP_MAX, |wait| wait.min(SLEEP_MAX)))
    }

    async fn deliver(self: Arc<Self>, waiting: Waiting) -> anyhow::Result<()> {
        let answer = self.post(&waiting).await;
        let outcome = self.judge(&waiting, answer, Utc::now());
        match &outcome {
            Outcome::Delivered => {}
            Outcome::Failed { error, .. } => {
                tracing::info!(webhook = %self.webhook, id = waiting.id, error, "not delivered yet");
            }
            Outcome::GivenUp { error } => {
                tracing::warn!(webhook = %self.webhook, id = waiting.id, error, "given up");
            }
        }
        let settle =
            move || queue::settle(&self.ledger, &self.webhook.name, waiting.position, &outcome);
        Ok(tokio::task::spawn_blocking(settle).await??)
    }

    async fn post(&self, waiting: &Waiting) -> anyhow::Result<(StatusCode, HeaderMap)> {
        let id = message_id(&waiting.source, &waiting.id);
        let timestamp = Utc::now().timestamp();
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("agent-meter/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.secret.sign(&id, timestamp, &waiting.body))
            .body(Full::new(Bytes::from(waiting.body.clone())))?;
        let answer = tokio::time::timeout(self.retry.timeout, self.client.request(request)).await;
        let answer = answer.map_err(|_| anyhow!("no answer within {:?}", self.retry.timeout))??;
        // Only the status decides, so nothing reads the body.
        let (head, _) = answer.into_parts();
        Ok((head.status, head.headers))
    }

    fn judge(
        &self,
        waiting: &Waiting,
        answer: anyhow::Result<(StatusCode, HeaderMap)>,
        now: DateTime<Utc>,
    ) -> Outcome {
        let (error, asked) = match answer {
            Ok((status, _)) if status.is_success() => return Outcome::Delivered,
            Ok((StatusCode::GONE, _)) => {
                return Outcome::GivenUp { error: "answered 410 Gone".to_owned() };
            }
            Ok((status, headers)) => (format!("answered {status}"), retry_after(&headers, now)),
            Err(error) => (format!("{error:#}"), None),
        };
        let (now_ms, end_ms) =
            (now.timestamp_millis(), waiting.queued_ms.saturating_add(ms(self.retry.horizon)));
        if now_ms >= end_ms {
            return Outcome::GivenUp { error };
        }
        let factor = 2_u32.saturating_pow(waiting.failures);
        let backoff = self.retry.first.saturating_mul(factor).min(self.retry.most);
        let wait = asked.map_or(backoff, |asked| asked.max(backoff));
        // The last try is at the end.
        Outcome::Failed { due_ms: now_ms.saturating_add(ms(wait)).min(end_ms), error }
    }
}

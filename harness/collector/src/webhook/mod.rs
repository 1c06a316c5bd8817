//! Webhooks: the receivers of changes of a guard's level. The ledger queues such an event as it
//! comes in (`ledger/outgoing.rs`). Tasks read the queue (`queue.rs`), sign the event (`sign.rs`)
//! and post it until the receiver takes it (`deliver.rs`).

mod deliver;
pub(crate) mod queue;
mod sign;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, ensure};
use reqwest::Url;

pub(crate) use deliver::Deliveries;
pub use sign::Secret;

/// The most webhooks of one collector. Each has a task and connections of its own.
const WEBHOOKS_MAX: usize = 32;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The name in the `notify` of events; the one named `*` gets all of them.
    pub name: String,
    /// The URL to post to: http or https.
    pub url: Url,
}

impl FromStr for Webhook {
    type Err = anyhow::Error;

    /// Reads `NAME=URL`.
    fn from_str(text: &str) -> anyhow::Result<Webhook> {
        let Some((name, url)) = text.split_once('=') else {
            bail!("must be NAME=URL, found {text:?}");
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let named = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain);
        ensure!(
            named || name == "*",
            "the name must be * or 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ ., found {name:?}"
        );
        let parsed = match Url::parse(url) {
            Ok(parsed) => parsed,
            Err(error) => bail!("the URL of {name}: {error}, found {url:?}"),
        };
        let scheme = parsed.scheme();
        ensure!(
            ["http", "https"].contains(&scheme),
            "the URL of {name}: must begin with http:// or https://, found {url:?}"
        );
        // The error does not show the URL, which contains a password.
        ensure!(
            parsed.username().is_empty() && parsed.password().is_none(),
            "the URL of {name}: must hold no user and no password; the receiver knows us by the \
             signature"
        );
        Ok(Webhook { name: name.to_owned(), url: parsed })
    }
}

/// The receivers, the secret that signs what they get, and when to try again.
#[derive(Debug, Clone)]
pub struct Webhooks {
    hooks: Vec<Webhook>,
    secret: Secret,
    /// When to try again.
    pub retry: Retry,
}

impl Webhooks {
    /// Takes 1 to 32 webhooks, each name once.
    ///
    /// # Errors
    ///
    /// If there are none, more, or two of one name.
    pub fn new(hooks: Vec<Webhook>, secret: Secret) -> anyhow::Result<Webhooks> {
        ensure!(
            (1..=WEBHOOKS_MAX).contains(&hooks.len()),
            "must be 1 to {WEBHOOKS_MAX} webhooks, found {}",
            hooks.len()
        );
        for (index, hook) in hooks.iter().enumerate() {
            let twice = hooks[..index].iter().any(|other| other.name == hook.name);
            ensure!(!twice, "the name {} is given twice", hook.name);
        }
        Ok(Webhooks { hooks, secret, retry: Retry::default() })
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.hooks.iter().map(|hook| hook.name.clone()).collect()
    }
}

/// When to try a receiver again that did not take an event: after `first`, then after twice as
/// long, and so on up to `most`, until `horizon` after the event came in.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The first wait.
    pub first: Duration,
    /// The longest wait, unless the receiver asks for a longer one.
    pub most: Duration,
    /// After this time the collector gives up the event.
    pub horizon: Duration,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            first: Duration::from_secs(1),
            most: Duration::from_secs(15 * 60),
            horizon: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Display for Webhook {
    /// Leaves out the URL, which may contain a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

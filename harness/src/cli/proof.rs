//! `agent-meter seal`, `verify` and `prove`: shows that a ledger is what it was.

use std::io::Read;
use std::path::{Path, PathBuf};

use agent_meter_collector::Ledger;
use agent_meter_collector::proof::{Proof, PublicKey, SigningKey};
use anyhow::{Context, ensure};
use clap::Args;

use super::execute::print;

/// Signs what all events since the last root come to. Keep the printed statements where who can
/// write the ledger cannot write: they show that nothing before them was changed.
#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// A private key of Ed25519 in PEM, as of `openssl genpkey -algorithm ed25519 -out FILE`
    #[arg(long, value_name = "FILE")]
    signing_key_file: PathBuf,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl SealArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let key = SigningKey::read(&self.signing_key_file)?;
        let ledger = Ledger::open_existing(&self.ledger)?;
        match ledger.seal(&key)? {
            Some(root) if self.json => print(&serde_json::to_string(&root)?),
            Some(root) => print(&format!("{}signature {}", root.statement(), root.signature)),
            None if self.json => print("null"),
            None => print("no event since the last root"),
        }
    }
}

/// Looks at every event, chain and root, and at the calls and generations that were derived; or,
/// with --proof, at the proof of one event, which needs no ledger.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The public key of who signed the roots, in PEM, as of `openssl pkey -in KEY -pubout -out FILE`
    #[arg(long, value_name = "FILE", required_unless_present = "ledger")]
    public_key_file: Option<PathBuf>,
    /// A proof that `agent-meter prove` printed; `-` is stdin
    #[arg(long, value_name = "FILE", requires = "public_key_file", conflicts_with = "ledger")]
    proof: Option<PathBuf>,
    /// The ledger; a collector may have it open [default: sqlite:agent-meter.db]
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let key = self.public_key_file.as_deref().map(PublicKey::read).transpose()?;
        if let (Some(file), Some(key)) = (&self.proof, &key) {
            let text = read(file)?;
            let proof: Proof = serde_json::from_str(&text).context("the proof")?;
            let event = proof.check(key)?;
            return print(if self.json { event } else { "the event is under a root of this key" });
        }
        let url = self.ledger.as_deref().unwrap_or("sqlite:agent-meter.db");
        let found = Ledger::open_existing(url)?.verify(key.as_ref())?;
        if self.json {
            print(&serde_json::to_string(&found)?)?;
        } else {
            print(&format!(
                "{} events, {} of them under no root yet; {} roots{}",
                found.events,
                found.events_not_sealed,
                found.roots,
                if key.is_some() { "" } else { ", whose signatures were not looked at" }
            ))?;
            if found.events_without_digest > 0 {
                let count = found.events_without_digest;
                print(&format!("{count} events are older than digests: nothing is known of them"))?;
            }
            for fault in &found.listed {
                print(fault)?;
            }
        }
        ensure!(found.faults == 0, "{} faults", found.faults);
        Ok(())
    }
}

/// Prints, as JSON, what shows that an event is in the ledger as it is, to whoever has the public
/// key: `agent-meter verify --proof`.
#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    /// The id of the event
    #[arg(value_name = "EVENT")]
    event: String,
    /// Its source, where several have such an id
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
}

impl ProveArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        print(&serde_json::to_string(&ledger.prove(&self.event, self.source.as_deref())?)?)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("stdin")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

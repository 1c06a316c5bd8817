//! Reads the contracted revenue of customers from a file that the operator keeps, and reads it
//! again whenever the file changes. If the changed file is wrong, the contracts stay as they were.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::event::members::{Members, shown};
use crate::settings::yaml_or_json;

/// The largest file of contracts, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One customer's contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// The revenue in one period of a guard, in that guard's currency.
    pub contracted_revenue: Decimal,
    /// The plan's name.
    pub plan: Option<String>,
}

/// The contracts of a file, as of its last valid version.
pub struct Contracts {
    file: PathBuf,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// The version of the file.
    stamp: Stamp,
    by_customer: BTreeMap<String, Contract>,
}

/// When the file was changed, and its length in bytes; they differ between two versions.
type Stamp = Option<(SystemTime, u64)>;

impl fmt::Debug for Contracts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contracts").field(&self.file).finish()
    }
}

impl Contracts {
    /// Reads a file in YAML or JSON.
    ///
    /// # Errors
    ///
    /// Names the file, the place in it and the value found there.
    pub fn open(file: &Path) -> anyhow::Result<Contracts> {
        let stamp = stamp(file);
        let by_customer = read(file)?;
        let known = RwLock::new(Known { stamp, by_customer });
        Ok(Contracts { file: file.to_owned(), known })
    }

    /// The contract of a customer; `None` if there is none.
    pub fn of(&self, customer: &str) -> Option<Contract> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_customer.get(customer).cloned()
    }

    /// Reads the file again if it changed.
    ///
    /// # Errors
    ///
    /// As [`Contracts::open`]. The contracts then stay as they were until the file changes again.
    pub fn refresh(&self) -> anyhow::Result<()> {
        let stamp = stamp(&self.file);
        if stamp == self.known.read().unwrap_or_else(PoisonError::into_inner).stamp {
            return Ok(());
        }
        let read = read(&self.file);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.stamp = stamp;
        known.by_customer = read?;
        tracing::info!(file = %self.file.display(), "contracts read again");
        Ok(())
    }
}

fn stamp(file: &Path) -> Stamp {
    let state = std::fs::metadata(file).ok()?;
    Some((state.modified().ok()?, state.len()))
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<String, Contract>> {
    let name = file.display();
    let bytes = std::fs::metadata(file).with_context(|| format!("cannot read {name}"))?.len();
    ensure!(bytes <= FILE_BYTES_MAX, "{name}: must be at most {FILE_BYTES_MAX} bytes");
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let root = yaml_or_json(&text).with_context(|| format!("{name} is neither YAML nor JSON"))?;
    let Value::Object(root) = &root else {
        bail!("{name}: must be a mapping with `customers`, found {}", shown(&root));
    };
    contracts(root).map_err(|reason| anyhow::anyhow!("{name}: {reason}"))
}

fn contracts(root: &Map<String, Value>) -> Result<BTreeMap<String, Contract>, String> {
    let root = Members { path: "".into(), object: root };
    root.only(&["customers"])?;
    let customers = root.members("customers")?;
    let contract = |customer: &String| {
        let contract = customers.members(customer)?;
        contract.only(&["contracted_revenue", "plan"])?;
        let contract = Contract {
            contracted_revenue: contract.money("contracted_revenue")?,
            plan: contract.optional("plan", Members::name)?,
        };
        Ok((customer.clone(), contract))
    };
    customers.object.keys().map(contract).collect()
}

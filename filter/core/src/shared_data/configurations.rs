//! Which configurations run under a plugin's name in this Envoy: while a listener drains, the one
//! before serves on beside the one that is in force.
//!
//! To the next maintainer: the keys, after the plugin's prefix, are `g` for the list, in the order in
//! which the configurations were announced, and `f{id}` for the text of each without its secrets, so
//! that the accountant of one can price what was recorded under another.

use crate::base::encoded::encoded;
use crate::base::limits::CONFIGURATIONS_MAX;
use crate::domain::ids::ConfigId;
use crate::host::{Expect, Host};

/// How often [`announce`] tries again, when other VMs are faster.
const TRIES_MAX: usize = 100;

fn list_key(prefix: &str) -> String {
    format!("{prefix}g")
}

fn text_key(prefix: &str, id: ConfigId) -> String {
    format!("{prefix}f{id:016x}")
}

fn read(host: &mut impl Host, prefix: &str) -> (Vec<ConfigId>, Expect) {
    match host.get(&list_key(prefix)) {
        None => (Vec::new(), Expect::Absent),
        Some((bytes, version)) => {
            (postcard::from_bytes(&bytes).unwrap_or_default(), Expect::Version(version))
        }
    }
}

/// Puts a configuration at the end of the list. The list forgets the first of more than
/// [`CONFIGURATIONS_MAX`].
pub(crate) fn announce(
    host: &mut impl Host,
    prefix: &str,
    id: ConfigId,
    text: impl FnOnce() -> Vec<u8>,
) {
    // Another VM of this configuration was here, and texts can be long.
    if read(host, prefix).0.last() == Some(&id) {
        return;
    }
    // Before the list, so that whoever finds the id there finds the text.
    let _ = host.set(&text_key(prefix, id), &text(), Expect::Any);
    for _ in 0..TRIES_MAX {
        let (mut list, expect) = read(host, prefix);
        if list.last() == Some(&id) {
            return;
        }
        list.retain(|other| *other != id);
        list.push(id);
        let too_many = list.len().saturating_sub(CONFIGURATIONS_MAX);
        let forgotten: Vec<ConfigId> = list.drain(..too_many).collect();
        if host.set(&list_key(prefix), &encoded(&list), expect).is_ok() {
            for id in forgotten {
                let _ = host.set(&text_key(prefix, id), b"", Expect::Any);
            }
            return;
        }
    }
}

/// The configurations that were announced, the latest last.
pub(crate) fn announced(host: &mut impl Host, prefix: &str) -> Vec<ConfigId> {
    read(host, prefix).0
}

/// The text of a configuration, unless the list has forgotten it.
pub(crate) fn text_of(host: &mut impl Host, prefix: &str, id: ConfigId) -> Option<Vec<u8>> {
    host.get(&text_key(prefix, id)).map(|(text, _)| text).filter(|text| !text.is_empty())
}

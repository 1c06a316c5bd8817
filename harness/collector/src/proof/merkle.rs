//! Trees of hashes after RFC 6962, section 2.1, in hexadecimal digits.

use sha2::{Digest, Sha256};

use crate::hex::{hex, unhex};

/// The hash of two hashes that stand side by side; `None` if one is no hash.
fn node(left: &str, right: &str) -> Option<String> {
    let hash = Sha256::new_with_prefix([1]);
    let hash = hash.chain_update(unhex(left.as_bytes())?).chain_update(unhex(right.as_bytes())?);
    Some(hex(&hash.finalize()))
}

/// A root that is made leaf by leaf, with one hash for each level in memory.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Complete trees from the left, each with the number of its leaves, a power of two.
    complete: Vec<(u64, String)>,
    leaves: u64,
}

impl Tree {
    /// Adds the hash of a leaf; false if a hash is none.
    pub(super) fn add(&mut self, leaf: String) -> bool {
        self.leaves += 1;
        let mut top = (1, leaf);
        while let Some((size, left)) = self.complete.pop_if(|(size, _)| *size == top.0) {
            let Some(hash) = node(&left, &top.1) else { return false };
            top = (2 * size, hash);
        }
        self.complete.push(top);
        true
    }

    pub(super) fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The root; `None` without leaves.
    pub(super) fn root(&self) -> Option<String> {
        let mut hashes = self.complete.iter().rev().map(|(_, hash)| hash);
        let last = hashes.next()?.clone();
        hashes.try_fold(last, |right, left| node(left, &right))
    }
}

/// The size of the left part of a tree with so many leaves, which are more than one: the largest
/// power of two below.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

fn root(leaves: &[String]) -> Option<String> {
    match leaves {
        [] => None,
        [leaf] => Some(leaf.clone()),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left)?, &root(right)?)
        }
    }
}

/// The hashes beside the way from a leaf to the root, from the leaf on.
pub(super) fn path(leaves: &[String], index: usize) -> Option<Vec<String>> {
    if leaves.len() <= 1 {
        return (index < leaves.len()).then(Vec::new);
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut way, beside) = match index.checked_sub(left.len()) {
        None => (path(left, index)?, root(right)?),
        Some(index) => (path(right, index)?, root(left)?),
    };
    way.push(beside);
    Some(way)
}

/// The root to which a path leads from a leaf; `None` if the path has another length than that of
/// a tree with so many leaves.
pub(super) fn root_of_path(leaf: &str, index: u64, leaves: u64, path: &[String]) -> Option<String> {
    if index >= leaves {
        return None;
    }
    // RFC 9162, section 2.1.3.2.
    let (mut place, mut last) = (index, leaves - 1);
    let mut hash = leaf.to_owned();
    for beside in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            hash = node(beside, &hash)?;
            while place % 2 == 0 && place != 0 {
                (place, last) = (place / 2, last / 2);
            }
        } else {
            hash = node(&hash, beside)?;
        }
        (place, last) = (place / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<String> {
        (0..count).map(|number| hex(&Sha256::digest(number.to_string()))).collect()
    }

    #[test]
    fn each_way_to_a_root_is_the_same() {
        for count in 1..70 {
            let leaves = leaves(count);
            let mut tree = Tree::default();
            assert!(leaves.iter().all(|leaf| tree.add(leaf.clone())));
            let expected = root(&leaves);
            assert_eq!(tree.root(), expected, "{count}");
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index).expect("a path");
                let (place, all) = (index as u64, count as u64);
                assert_eq!(root_of_path(leaf, place, all, &path), expected, "{index} of {count}");
                // Nothing else leads there.
                if count > 1 {
                    assert_eq!(root_of_path(leaf, place, all, &path[1..]), None);
                    let other = (place + 1) % all;
                    assert_ne!(root_of_path(leaf, other, all, &path), expected);
                }
            }
        }
        assert_eq!(Tree::default().root(), None);
    }

    /// The roots of RFC 6962's own test tree, as its reference implementation publishes them.
    #[test]
    fn the_tree_is_that_of_the_rfc() {
        let texts = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let leaf = |text: &&str| {
            let bytes = unhex(text.as_bytes()).expect("digits");
            hex(&Sha256::new_with_prefix([0]).chain_update(bytes).finalize())
        };
        let mut tree = Tree::default();
        for (text, expected) in texts.iter().zip([
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ]) {
            assert!(tree.add(leaf(text)));
            assert_eq!(tree.root().as_deref(), Some(expected));
        }
    }
}

//! The Merkle tree of RFC 6962, and its inclusion and consistency proofs.

use crate::hash::{Hash, empty_root, node_hash};

/// Why a proof fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf's index is not in the tree, or the old tree is larger than the new one.
    #[error("index or size is out of range")]
    Range,
    /// The proof has too few or too many hashes.
    #[error("the proof has the wrong length")]
    Length,
    /// The hashes do not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// A tree that keeps every complete node, so that it proves anything about any of its sizes.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else {
                return;
            };
            nodes.push(hash);
            if !nodes.len().is_multiple_of(2) {
                return;
            }
            let [.., left, right] = nodes.as_slice() else {
                return;
            };
            hash = node_hash(left, right);
            level += 1;
        }
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Hash {
        self.range(0, self.size()).unwrap_or_else(empty_root)
    }

    /// The root when the tree had this size.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        match size {
            0 => Some(empty_root()),
            size if size <= self.size() => self.range(0, size),
            _ => None,
        }
    }

    /// Every leaf's hash.
    pub fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// A leaf's hash.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.node(0, index)
    }

    /// The complete node `index` of `level` (leaves are level 0).
    pub fn node(&self, level: usize, index: u64) -> Option<Hash> {
        self.levels
            .get(level)?
            .get(usize::try_from(index).ok()?)
            .copied()
    }

    /// The right edge of the whole tree.
    pub fn frontier(&self) -> Frontier {
        let size = self.size();
        let mut hashes = Vec::new();
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            // Complete subtrees lie one after another, largest first.
            let start = size >> level >> 1 << 1;
            hashes.extend(self.node(level as usize, start));
        }
        Frontier { size, hashes }
    }

    /// The hash of the leaves `start..end`, where `start` is aligned as in RFC 6962's recursion.
    fn range(&self, start: u64, end: u64) -> Option<Hash> {
        let size = end.checked_sub(start).filter(|size| *size > 0)?;
        if size.is_power_of_two() {
            let level = size.trailing_zeros();
            return self.node(level as usize, start >> level);
        }
        let split = start + largest_power_below(size);
        Some(node_hash(
            &self.range(start, split)?,
            &self.range(split, end)?,
        ))
    }

    /// Proof that the leaf `index` is in the tree of `size` leaves (RFC 6962 section 2.1.1).
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let mut proof = Vec::new();
        let (mut start, mut end) = (0, size);
        while end - start > 1 {
            let split = start + largest_power_below(end - start);
            if index < split {
                proof.push(self.range(split, end)?);
                end = split;
            } else {
                proof.push(self.range(start, split)?);
                start = split;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// Proof that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962
    /// section 2.1.2). Empty for `old` 0 and for equal sizes.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let mut proof = Vec::new();
        let (mut start, mut end, mut whole) = (0, new, true);
        while old != end {
            let split = start + largest_power_below(end - start);
            if old <= split {
                proof.push(self.range(split, end)?);
                end = split;
            } else {
                proof.push(self.range(start, split)?);
                start = split;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.range(start, end)?);
        }
        proof.reverse();
        Some(proof)
    }

    /// The bytes of a tile: `width` hashes (1 to 256) from `n * 256` at tree level `8 * level`
    /// (tlog-tiles).
    pub fn tile(&self, level: u8, n: u64, width: u16) -> Option<Vec<u8>> {
        if !(1..=256).contains(&width) {
            return None;
        }
        let nodes = self.levels.get(usize::from(level) * 8)?;
        let start = usize::try_from(n.checked_mul(256)?).ok()?;
        let hashes = nodes.get(start..start.checked_add(usize::from(width))?)?;
        Some(hashes.iter().flat_map(|hash| hash.0).collect())
    }
}

/// The largest power of two below `size`, for `size` of 2 and more.
fn largest_power_below(size: u64) -> u64 {
    size.checked_sub(1)
        .and_then(u64::checked_ilog2)
        .map_or(0, |log| 1 << log)
}

/// The right edge of a tree: enough to append and to know the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    // Roots of complete subtrees, largest first.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }
    /// From stored parts; the number of hashes must fit the size, which is below 2^63.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (size < 1 << 63 && hashes.len() == size.count_ones() as usize)
            .then_some(Self { size, hashes })
    }
    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            size >>= 1;
        }
        self.hashes.push(hash);
        self.size += 1;
    }
    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Roots of the complete subtrees, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }
    /// The root.
    pub fn root(&self) -> Hash {
        let mut hashes = self.hashes.iter().rev();
        let Some(last) = hashes.next() else {
            return empty_root();
        };
        hashes.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Checks that `leaf` is entry `index` of the tree with `size` leaves and `root` (RFC 9162
/// section 2.1.3.2).
///
/// # Errors
/// When the proof does not show it.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut position, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(step, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks that the old tree is a prefix of the new one (RFC 9162 section 2.1.4.2).
///
/// # Errors
/// When the proof does not show it.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Range);
    }
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::Root);
    }
    if old == 0 || old == new {
        return match proof {
            [] if old == 0 && new > 0 => Ok(()),
            [] if old_root == new_root => Ok(()),
            [] => Err(ProofError::Root),
            _ => Err(ProofError::Length),
        };
    }
    let (mut position, mut last) = (old - 1, new - 1);
    while position & 1 == 1 {
        position >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() {
        *old_root
    } else {
        *steps.next().ok_or(ProofError::Length)?
    };
    let (mut from_old, mut from_new) = (first, first);
    for step in steps {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            from_old = node_hash(step, &from_old);
            from_new = node_hash(step, &from_new);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, step);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if from_old == *old_root && from_new == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;

    /// RFC 6962's definition, written as it stands there.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    #[test]
    fn every_proof_of_small_trees_verifies_and_no_other_does() {
        let leaves: Vec<Hash> = (0..40u8).map(|i| leaf_hash(&[i])).collect();
        let mut tree = Tree::new();
        let mut edge = Frontier::new();
        for (n, leaf) in leaves.iter().enumerate() {
            tree.push(*leaf);
            edge.push(*leaf);
            let size = n as u64 + 1;
            let root = mth(&leaves[..=n]);
            assert_eq!(
                (tree.root(), edge.root(), tree.root_at(size)),
                (root, root, Some(root))
            );
            for index in 0..size {
                let proof = tree.inclusion_proof(index, size).unwrap();
                verify_inclusion(&leaves[index as usize], index, size, &proof, &root).unwrap();
                let wrong = (index + 1) % size;
                if wrong != index {
                    assert!(
                        verify_inclusion(&leaves[wrong as usize], index, size, &proof, &root)
                            .is_err()
                    );
                    assert!(
                        verify_inclusion(&leaves[index as usize], wrong, size, &proof, &root)
                            .is_err()
                    );
                }
                let mut long = proof.clone();
                long.push(Hash::ZERO);
                assert!(
                    verify_inclusion(&leaves[index as usize], index, size, &long, &root).is_err()
                );
            }
            for old in 0..=size {
                let proof = tree.consistency_proof(old, size).unwrap();
                let old_root = tree.root_at(old).unwrap();
                verify_consistency(old, &old_root, size, &root, &proof).unwrap();
                if old > 0 && old < size {
                    assert!(verify_consistency(old, &Hash::ZERO, size, &root, &proof).is_err());
                    assert!(verify_consistency(old, &old_root, size, &Hash::ZERO, &proof).is_err());
                }
            }
        }
    }
}

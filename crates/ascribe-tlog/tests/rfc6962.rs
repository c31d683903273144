//! The tree against the definitions of RFC 6962, written as they stand there, and against an
//! independent implementation.

#![cfg(test)]

use ascribe_tlog::{
    Frontier, Hash, TileKind, Tree, empty_root, leaf_hash, node_hash, tiles_of, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, prop_assume, proptest};
use sha2::Sha256;

/// The largest power of two smaller than `n`.
fn split(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// Section 2.1, MTH(D[n]).
fn mth(d: &[Hash]) -> Hash {
    match d {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let k = split(d.len());
            node_hash(&mth(&d[..k]), &mth(&d[k..]))
        }
    }
}

/// Section 2.1.1, PATH(m, D[n]).
fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    if d.len() == 1 {
        return Vec::new();
    }
    let k = split(d.len());
    let (mut proof, sibling) = if m < k {
        (path(m, &d[..k]), mth(&d[k..]))
    } else {
        (path(m - k, &d[k..]), mth(&d[..k]))
    };
    proof.push(sibling);
    proof
}

/// Section 2.1.2, SUBPROOF(m, D[n], b).
fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
    if m == d.len() {
        return if whole { Vec::new() } else { vec![mth(d)] };
    }
    let k = split(d.len());
    let (mut proof, other) = if m <= k {
        (subproof(m, &d[..k], whole), mth(&d[k..]))
    } else {
        (subproof(m - k, &d[k..], false), mth(&d[..k]))
    };
    proof.push(other);
    proof
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n as u64).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn tree(leaves: &[Hash]) -> Tree {
    let mut tree = Tree::new();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree
}

fn hex(hash: Hash) -> String {
    format!("{hash:?}")
}

#[test]
fn published_roots_are_reached() {
    // The test vectors of Certificate Transparency implementations.
    let entries: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(
        hex(empty_root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let (mut tree, mut edge) = (Tree::new(), Frontier::new());
    assert_eq!((tree.root(), edge.root()), (empty_root(), empty_root()));
    for (entry, root) in entries.iter().zip(roots) {
        tree.push(leaf_hash(entry));
        edge.push(leaf_hash(entry));
        assert_eq!(
            (hex(tree.root()), hex(edge.root())),
            (root.into(), root.into())
        );
    }
}

#[test]
fn the_right_edge_of_every_small_tree_is_the_one_pushed() {
    let (mut tree, mut edge) = (Tree::new(), Frontier::new());
    for leaf in leaves(300) {
        assert_eq!(tree.frontier(), edge);
        tree.push(leaf);
        edge.push(leaf);
    }
    assert_eq!(tree.frontier(), edge);
}

#[test]
fn every_proof_of_every_small_tree_is_the_one_defined() {
    let leaves = leaves(70);
    let tree = tree(&leaves);
    for n in 1..=leaves.len() {
        let d = &leaves[..n];
        assert_eq!(tree.root_at(n as u64), Some(mth(d)));
        for m in 0..n {
            let proof = tree.inclusion_proof(m as u64, n as u64);
            assert_eq!(proof, Some(path(m, d)), "{m} {n}");
        }
        for m in 1..=n {
            let proof = tree.consistency_proof(m as u64, n as u64);
            assert_eq!(proof, Some(subproof(m, d, true)), "{m} {n}");
        }
    }
}

#[test]
fn what_is_out_of_range_has_no_proof() {
    let tree = tree(&leaves(5));
    for (index, size) in [(5, 5), (0, 0), (0, 6), (6, 6), (u64::MAX, u64::MAX)] {
        assert_eq!(tree.inclusion_proof(index, size), None);
    }
    for (old, new) in [(2, 1), (0, 6), (6, 6), (1, u64::MAX)] {
        assert_eq!(tree.consistency_proof(old, new), None);
    }
    assert_eq!(tree.root_at(6), None);
    assert_eq!(tree.leaf(5), None);
    assert_eq!(tree.node(2, 1), None);
    assert_eq!(tree.node(64, 0), None);
    for (level, n, width) in [
        (0, 0, 0),
        (0, 0, 6),
        (0, 0, 257),
        (0, 1, 1),
        (1, 0, 1),
        (255, 0, 1),
    ] {
        assert_eq!(tree.tile(level, n, width), None, "{level} {n} {width}");
    }
    assert_eq!(tree.tile(0, u64::MAX, 1), None);
}

#[test]
fn empty_and_equal_trees_need_empty_proofs() {
    let (zero, empty) = (Hash::ZERO, empty_root());
    let one = [zero];
    assert!(verify_consistency(0, &empty, 0, &empty, &[]).is_ok());
    assert!(verify_consistency(0, &empty, 9, &zero, &[]).is_ok());
    assert!(verify_consistency(9, &zero, 9, &zero, &[]).is_ok());
    assert!(verify_consistency(0, &empty, 0, &zero, &[]).is_err());
    assert!(verify_consistency(0, &zero, 0, &zero, &[]).is_err());
    assert!(verify_consistency(0, &zero, 9, &zero, &[]).is_err());
    assert!(verify_consistency(0, &empty, 9, &zero, &one).is_err());
    assert!(verify_consistency(9, &zero, 9, &empty, &[]).is_err());
    assert!(verify_consistency(9, &zero, 9, &zero, &one).is_err());
    assert!(verify_consistency(9, &zero, 8, &zero, &[]).is_err());
    assert!(verify_consistency(1, &zero, 2, &zero, &[]).is_err());
    assert!(verify_consistency(3, &zero, u64::MAX, &zero, &[zero; 64]).is_err());
    assert!(verify_inclusion(&zero, 0, 0, &[], &empty).is_err());
    assert!(verify_inclusion(&zero, 0, 1, &[], &zero).is_ok());
    assert!(verify_inclusion(&zero, u64::MAX - 1, u64::MAX, &[zero; 64], &zero).is_err());
}

#[test]
fn tiles_hold_the_hashes_of_the_definition() {
    let leaves = leaves(70_000);
    let tree = tree(&leaves);
    for tile in tiles_of(tree.size()) {
        let TileKind::Hashes(level) = tile.kind else {
            panic!("{tile}")
        };
        let bytes = tree.tile(level, tile.n, tile.width).unwrap();
        assert_eq!(bytes.len(), usize::from(tile.width) * 32);
        let span = 256usize.pow(u32::from(level));
        // First and last hash: the whole definition is quadratic.
        for i in [0, usize::from(tile.width) - 1] {
            let at = (usize::try_from(tile.n).unwrap() * 256 + i) * span;
            assert_eq!(
                bytes[i * 32..][..32],
                mth(&leaves[at..at + span]).0,
                "{tile} {i}"
            );
        }
        // What is not there yet is in no tile.
        if tile.width < 256 {
            assert_eq!(tree.tile(level, tile.n, tile.width + 1), None);
        }
    }
}

#[test]
fn the_edge_is_restored_from_its_parts() {
    let mut edge = Frontier::new();
    for leaf in leaves(100) {
        let mut restored = Frontier::from_parts(edge.size(), edge.hashes().to_vec()).unwrap();
        assert_eq!(restored, edge);
        edge.push(leaf);
        restored.push(leaf);
        assert_eq!(restored.root(), edge.root());
    }
    assert!(Frontier::from_parts(3, vec![Hash::ZERO]).is_none());
    assert!(Frontier::from_parts(0, vec![Hash::ZERO]).is_none());
    assert!(Frontier::from_parts(1 << 63, vec![Hash::ZERO]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn proofs_are_those_of_the_definition(n in 1usize..700, a in any::<usize>(), b in any::<usize>()) {
        let leaves = leaves(n + 9);
        let tree = tree(&leaves);
        let d = &leaves[..n];
        let root = mth(d);
        let (size, m) = (n as u64, a % n);
        prop_assert_eq!(tree.root_at(size), Some(root));
        let proof = tree.inclusion_proof(m as u64, size).unwrap();
        prop_assert_eq!(&proof, &path(m, d));
        prop_assert!(verify_inclusion(&leaves[m], m as u64, size, &proof, &root).is_ok());
        let old = b % n + 1;
        let proof = tree.consistency_proof(old as u64, size).unwrap();
        prop_assert_eq!(&proof, &subproof(old, d, true));
        let old_root = mth(&leaves[..old]);
        prop_assert!(verify_consistency(old as u64, &old_root, size, &root, &proof).is_ok());
    }

    #[test]
    fn no_changed_proof_verifies(n in 2usize..300, a in any::<usize>(), bit in any::<usize>()) {
        let leaves = leaves(n);
        let tree = tree(&leaves);
        let (size, m, root) = (n as u64, a % n, tree.root());
        let flip = |proof: &[Hash]| {
            let mut proof = proof.to_vec();
            let at = bit % (proof.len() * 256);
            proof[at / 256].0[at % 256 / 8] ^= 1 << (at % 8);
            proof
        };
        let fails = |proof: &[Hash]| verify_inclusion(&leaves[m], m as u64, size, proof, &root).is_err();
        let proof = tree.inclusion_proof(m as u64, size).unwrap();
        prop_assert!(fails(&flip(&proof)));
        prop_assert!(fails(&proof[1..]));
        prop_assert!(fails(&proof[..proof.len() - 1]));
        prop_assert!(fails(&[&proof[..], &[Hash::ZERO]].concat()));
        for wrong in [m + 1, m ^ 1, n - 1 - m] {
            if wrong != m {
                prop_assert!(verify_inclusion(&leaves[m], wrong as u64, size, &proof, &root).is_err());
            }
        }

        let old = m as u64;
        prop_assume!(old > 0);
        let old_root = tree.root_at(old).unwrap();
        let fails = |proof: &[Hash]| verify_consistency(old, &old_root, size, &root, proof).is_err();
        let proof = tree.consistency_proof(old, size).unwrap();
        prop_assert!(fails(&flip(&proof)));
        prop_assert!(fails(&proof[1..]));
        prop_assert!(fails(&proof[..proof.len() - 1]));
        prop_assert!(fails(&[&proof[..], &[Hash::ZERO]].concat()));
        prop_assert!(verify_consistency(old, &root, size, &root, &proof).is_err());
        prop_assert!(verify_consistency(old, &old_root, size, &old_root, &proof).is_err());
    }

    #[test]
    fn the_other_implementation_agrees(n in 1usize..500, a in any::<usize>(), b in any::<usize>()) {
        let mut theirs = ct_merkle::mem_backed_tree::MemoryBackedTree::<Sha256, [u8; 8]>::new();
        (0..n as u64).for_each(|i| theirs.push(i.to_be_bytes()));
        let leaves = leaves(n);
        let ours = tree(&leaves);
        let bytes = |proof: Vec<Hash>| proof.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
        prop_assert_eq!(theirs.root().as_bytes().to_vec(), ours.root().0);
        let index = a % n;
        prop_assert_eq!(
            theirs.prove_inclusion(index).as_bytes().to_vec(),
            bytes(ours.inclusion_proof(index as u64, n as u64).unwrap())
        );
        let old = b % n + 1;
        prop_assert_eq!(
            theirs.prove_consistency(n - old).as_bytes().to_vec(),
            bytes(ours.consistency_proof(old as u64, n as u64).unwrap())
        );
    }
}

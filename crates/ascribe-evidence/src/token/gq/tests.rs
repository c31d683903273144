//! Whatever is signed is proved, and nothing else is; whatever the bytes, there is an answer.

use std::sync::LazyLock;

use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use proptest::prelude::*;

use super::*;

static PAIR: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

/// The modulus, out of an RSAPublicKey (RFC 8017, A.1.1): 9 bytes stand before it.
fn modulus() -> Vec<u8> {
    PAIR.public_key().as_ref()[9..265].to_vec()
}

fn sign(signed: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; 256];
    PAIR.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed,
        &mut signature,
    )
    .unwrap();
    signature
}

fn drawn(bytes: &mut [u8]) -> bool {
    fill(bytes).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_signed_is_proved_over_one_message_alone(
        signed in proptest::collection::vec(any::<u8>(), 0..200),
        message in proptest::collection::vec(any::<u8>(), 0..200),
        (at, bit) in (0_usize..4128, 0_u8..8),
    ) {
        let n = modulus();
        let key = Key::new(&n, &EXPONENT).unwrap();
        let proof = key.prove(&sign(&signed), &message, &mut drawn).unwrap();
        prop_assert!(key.verify(&signed, &message, &proof));
        let more = |text: &[u8]| [text, b"."].concat();
        prop_assert!(!key.verify(&more(&signed), &message, &proof));
        prop_assert!(!key.verify(&signed, &more(&message), &proof));
        let mut changed = proof.clone();
        changed[at] ^= 1 << bit;
        prop_assert!(!key.verify(&signed, &message, &changed));
        prop_assert!(!key.verify(&signed, &message, &proof[..at]));
        // Two proofs have nothing in common: no secret number is used twice.
        let other = key.prove(&sign(&signed), &message, &mut drawn).unwrap();
        prop_assert!(proof.chunks(32).zip(other.chunks(32)).all(|(one, two)| one != two));
    }

    #[test]
    fn a_proof_by_whoever_has_no_signature_is_none(
        signed in proptest::collection::vec(any::<u8>(), 0..200),
        mut guess in proptest::collection::vec(any::<u8>(), 256),
    ) {
        let n = modulus();
        let key = Key::new(&n, &EXPONENT).unwrap();
        guess[0] = 0;
        let proof = key.prove(&guess, b"message", &mut drawn);
        prop_assert!(!proof.is_some_and(|proof| key.verify(&signed, b"message", &proof)));
    }

    #[test]
    fn whatever_the_bytes_there_is_an_answer(
        n in proptest::collection::vec(any::<u8>(), 0..300),
        e in proptest::collection::vec(any::<u8>(), 0..4),
        known in any::<bool>(),
        proof in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let e = if known { &EXPONENT } else { &e[..] };
        if let Some(key) = Key::new(&n, e) {
            prop_assert_eq!(e, EXPONENT);
            prop_assert!(!key.verify(b"signed", b"message", &proof));
            // Whatever is made under what is no product of primes is not shown: the provider's signature is checked first.
            let _: Option<Vec<u8>> = key.prove(&proof, b"message", &mut drawn);
        }
    }
}

#[test]
fn other_exponents_and_what_is_no_modulus_make_no_key() {
    let n = modulus();
    for e in [
        &[3][..],
        &[17],
        &[1, 0, 3],
        &[0, 1, 0, 1],
        &[1, 0, 1, 0],
        &[],
    ] {
        assert!(Key::new(&n, e).is_none(), "{e:?}");
    }
    let mut even = n.clone();
    even[255] &= 0xfe;
    for n in [&even[..], &[0, 1], &[], &[7; 61], &[&[0], &n[..]].concat()] {
        assert!(Key::new(n, &EXPONENT).is_none());
    }
}

#[test]
fn without_randomness_there_is_no_proof() {
    let n = modulus();
    let key = Key::new(&n, &EXPONENT).unwrap();
    let signature = sign(b"signed");
    assert!(key.prove(&signature, b"message", &mut |_| false).is_none());
    for stuck in [0, 0xff] {
        let mut random = |bytes: &mut [u8]| {
            bytes.fill(stuck);
            true
        };
        assert!(
            key.prove(&signature, b"message", &mut random).is_none(),
            "{stuck}"
        );
    }
}

#[test]
fn what_is_no_number_below_the_modulus_is_no_signature() {
    let n = modulus();
    let key = Key::new(&n, &EXPONENT).unwrap();
    let signature = sign(b"signed");
    let longer = [&[0], &signature[..]].concat();
    for bad in [
        &n[..],
        &[0; 256],
        &[0xff; 256],
        &signature[1..],
        &longer,
        &[],
    ] {
        assert!(key.prove(bad, b"message", &mut drawn).is_none());
    }
}

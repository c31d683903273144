//! Proofs that somebody knows an RS256 signature, without showing it: the signature scheme of Guillou and Quisquater
//! (GQ1 of ISO/IEC 14888-2) with the provider's signature as the private number, as OpenPubkey's `GQ256` has it.
//!
//! The provider's signature `s` of an encoded message `G` has `s^e = G` modulo `n`. Each round commits to a random
//! `r` by `W = r^e`, takes a challenge `R` from a hash of all `W` and the message, and answers `S = r * s^-R`; then
//! `S^e * G^R = W`. Who can answer two challenges of one `W` knows an `e`-th root of `G`, the signature. So whoever
//! does not know it is ready for one challenge in 65536 in each round.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use sha2::{Digest as _, Sha256};
use shake::{ExtendableOutput as _, Shake256, Update as _, XofReader as _};
use zeroize::Zeroizing;

/// The one public exponent that is taken, big-endian: it is prime and above every challenge, which is what the
/// argument above needs. Others would need other numbers of rounds.
const EXPONENT: [u8; 3] = [1, 0, 1];
/// Its bits.
const EXPONENT_BITS: u32 = 17;
/// Rounds: 16 bits of challenge each, 256 together.
const ROUNDS: usize = 16;
/// A challenge's length, in bytes.
const CHALLENGE: usize = 2;
/// How often a number below the modulus is drawn before the source of randomness is given up. More than half of
/// the draws are good.
const DRAWS: usize = 256;

/// What stands before a SHA-256 digest in an encoded message (RFC 8017, 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Fills a slice with random bytes; false where that fails.
pub(super) type Random<'a> = &'a mut dyn FnMut(&mut [u8]) -> bool;

/// An RSA key that proofs are for.
pub(super) struct Key<'a> {
    /// The modulus, big-endian and without a zero before it.
    n: &'a [u8],
    params: BoxedMontyParams,
    exponent: BoxedUint,
}

impl<'a> Key<'a> {
    /// None for another exponent than 65537, and for what is no modulus.
    pub(super) fn new(n: &'a [u8], e: &[u8]) -> Option<Self> {
        if e != EXPONENT || n.len() < DIGEST_INFO.len() + 43 || n.first() == Some(&0) {
            return None;
        }
        let odd: Option<Odd<BoxedUint>> = BoxedUint::from_be_slice_vartime(n).into_odd().into();
        let params = BoxedMontyParams::new_vartime(odd?);
        let exponent = BoxedUint::from_be_slice_vartime(&EXPONENT);
        Some(Self {
            n,
            params,
            exponent,
        })
    }

    /// A number, given in as many bytes as the modulus has; none where it is zero or not below the modulus.
    fn number(&self, bytes: &[u8]) -> Option<BoxedMontyForm> {
        // Both as long, so the order of the bytes is that of the numbers.
        if bytes.len() != self.n.len() || bytes >= self.n || bytes.iter().all(|byte| *byte == 0) {
            return None;
        }
        let number = BoxedUint::from_be_slice(bytes, self.params.bits_precision()).ok()?;
        Some(BoxedMontyForm::new(number, &self.params))
    }

    /// The number in as many bytes as the modulus has.
    fn bytes(&self, number: &BoxedMontyForm) -> Vec<u8> {
        let bytes = number.retrieve().to_be_bytes();
        let surplus = bytes.len().saturating_sub(self.n.len());
        bytes.get(surplus..).unwrap_or_default().to_vec()
    }

    /// To the power of the public exponent.
    fn raise(&self, number: &BoxedMontyForm) -> BoxedMontyForm {
        number.pow_bounded_exp(&self.exponent, EXPONENT_BITS)
    }

    /// What the provider signed, encoded as a number (RFC 8017, 9.2).
    fn encoded(&self, signed: &[u8]) -> Option<BoxedMontyForm> {
        let digest = Sha256::digest(signed);
        let padding = self.n.len().checked_sub(DIGEST_INFO.len() + 32 + 3)?;
        let encoded = [
            &[0, 1][..],
            &vec![0xff; padding],
            &[0],
            &DIGEST_INFO,
            &digest,
        ]
        .concat();
        self.number(&encoded)
    }

    /// A number that nobody else knows. What a refused draw gives away is of no use, and where an accepted one is
    /// first unlike the modulus is in nearly every case the first byte.
    fn secret(&self, random: Random<'_>) -> Option<Zeroizing<BoxedMontyForm>> {
        let top = self.n.first()?.leading_zeros();
        let mut draw = Zeroizing::new(vec![0; self.n.len()]);
        for _ in 0..DRAWS {
            if !random(&mut draw) {
                return None;
            }
            if let Some(first) = draw.first_mut() {
                *first &= 0xff_u8.checked_shr(top).unwrap_or_default();
            }
            if let Some(number) = self.number(&draw) {
                return Some(Zeroizing::new(number));
            }
        }
        None
    }

    /// Does the proof show that whoever made it over `message` knew the key's signature of `signed`?
    pub(super) fn verify(&self, signed: &[u8], message: &[u8], proof: &[u8]) -> bool {
        self.commitments(signed, proof).is_some_and(|commitments| {
            let challenges = challenges(&commitments, message);
            proof.get(..challenges.len()) == Some(&challenges[..])
        })
    }

    /// The commitments that a proof must have begun with.
    fn commitments(&self, signed: &[u8], proof: &[u8]) -> Option<Vec<u8>> {
        let (challenges, answers) = proof.split_at_checked(ROUNDS * CHALLENGE)?;
        if answers.len() != ROUNDS.checked_mul(self.n.len())? {
            return None;
        }
        let encoded = self.encoded(signed)?;
        let mut commitments = Vec::with_capacity(answers.len());
        for (challenge, answer) in challenges
            .chunks(CHALLENGE)
            .zip(answers.chunks(self.n.len()))
        {
            let commitment = self.raise(&self.number(answer)?) * power(&encoded, challenge);
            commitments.extend(self.bytes(&commitment));
        }
        Some(commitments)
    }

    /// A proof over `message` by whoever knows the key's signature; none where the signature is no number of this
    /// key's, or randomness fails. What is computed with the signature takes the same time whatever it is, once
    /// it is known to be such a number.
    pub(super) fn prove(
        &self,
        signature: &[u8],
        message: &[u8],
        random: Random<'_>,
    ) -> Option<Vec<u8>> {
        let signature = Zeroizing::new(self.number(signature)?);
        let inverse: Option<BoxedMontyForm> = signature.invert().into();
        let inverse = Zeroizing::new(inverse?);
        let secrets: Option<Vec<_>> = (0..ROUNDS).map(|_| self.secret(random)).collect();
        let secrets = secrets?;
        let commitments = secrets.iter().map(|secret| self.bytes(&self.raise(secret)));
        let commitments: Vec<u8> = commitments.flatten().collect();
        let mut proof = challenges(&commitments, message);
        let answers = secrets.iter().zip(proof.chunks(CHALLENGE));
        let answers = answers.flat_map(|(secret, challenge)| {
            let power = Zeroizing::new(power(&inverse, challenge));
            self.bytes(&secret.mul(&power))
        });
        let answers: Vec<u8> = answers.collect();
        proof.extend(answers);
        Some(proof)
    }
}

/// To the power of a challenge, which is public.
fn power(number: &BoxedMontyForm, challenge: &[u8]) -> BoxedMontyForm {
    number.pow_bounded_exp(
        &BoxedUint::from_be_slice_vartime(challenge),
        8 * CHALLENGE as u32,
    )
}

/// All challenges: what the hash of the commitments and the message says.
fn challenges(commitments: &[u8], message: &[u8]) -> Vec<u8> {
    let mut hash = Shake256::default();
    hash.update(commitments);
    hash.update(message);
    let mut challenges = vec![0; ROUNDS * CHALLENGE];
    hash.finalize_xof().read(&mut challenges);
    challenges
}

#[cfg(test)]
mod tests;

//! What a workload signed with its X.509-SVID as the client of a TLS 1.3 connection (RFC 8446, 4.4.3), in the form in
//! which it is kept. What TLS hands over is untrusted, but for its form.

use ascribe_core::encoding::{self, Bytes};
use ascribe_core::identity::{TlsProof, tls_message};
use ascribe_core::law::Denied;

use super::certificate::refuse;

/// What TLS signs with, by its number (RFC 8446, 4.2.3): the name in JWS, and of ECDSA the length of a coordinate.
const SCHEMES: [(u16, &str, Option<usize>); 4] = [
    (0x0403, "ES256", Some(32)),
    (0x0503, "ES384", Some(48)),
    (0x0804, "PS256", None),
    (0x0807, "EdDSA", None),
];

/// Makes what takes the place of a token out of what a client showed in TLS: its certificate and those above it, the
/// number of the signature scheme, the message that was signed and the signature. That any of it is good is for
/// [`ascribe_core::law::Judge::token`] to say.
///
/// # Errors
/// When it is not what a client of TLS 1.3 signs, or is signed in a way that records have no name for.
pub fn tls_proof(
    chain: &[Vec<u8>],
    scheme: u16,
    message: &[u8],
    signature: &[u8],
) -> Result<Vec<u8>, Denied> {
    let known = SCHEMES.iter().find(|(number, ..)| *number == scheme);
    let Some((_, alg, coordinate)) = known else {
        return refuse(
            "svid-tls",
            "the certificate's key signs in a way that does not count here",
        );
    };
    let Some(transcript) = message.strip_prefix(&tls_message(&[])[..]) else {
        return refuse("svid-tls", "what was signed is no client's of TLS 1.3");
    };
    let sig = match coordinate {
        Some(size) => fixed(signature, *size),
        None => Some(signature.to_vec()),
    };
    let Some(sig) = sig else {
        return refuse("svid-tls", "the signature is malformed");
    };
    let proof = TlsProof {
        alg: (*alg).to_owned(),
        chain: chain.iter().cloned().map(Bytes).collect(),
        sig: Bytes(sig),
        transcript: Bytes(transcript.to_vec()),
    };
    encoding::encode(&proof).map_err(|error| Denied::new("svid-tls", error.to_string()))
}

/// An ECDSA signature of DER as `r` and `s` of this length, as JWS has it (RFC 7518, 3.4). Those of the curves here are
/// so short that each length is one byte.
fn fixed(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let [0x30, length, rest @ ..] = der else {
        return None;
    };
    let mut numbers = (rest.len() == usize::from(*length)).then_some(rest)?;
    let mut out = Vec::with_capacity(2 * size);
    for _ in 0..2 {
        let [2, length, rest @ ..] = numbers else {
            return None;
        };
        let (number, rest) = rest.split_at_checked(usize::from(*length))?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.resize(out.len() + size.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
        numbers = rest;
    }
    numbers.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecdsa_signature_has_one_fixed_form() {
        // A number with a zero byte before its first bit, and one that is short.
        let der = [0x30, 7, 2, 2, 0, 0x81, 2, 1, 5];
        assert_eq!(fixed(&der, 2), Some(vec![0, 0x81, 0, 5]));
        assert_eq!(fixed(&der, 1), Some(vec![0x81, 5]));
        for end in 0..der.len() {
            assert_eq!(fixed(&der[..end], 2), None, "{end}");
        }
        for bad in [
            &[0x31, 7, 2, 2, 0, 0x81, 2, 1, 5][..],
            &[0x30, 7, 3, 2, 0, 0x81, 2, 1, 5],
            &[0x30, 8, 2, 2, 0, 0x81, 2, 1, 5, 0],
            &[0x30, 7, 2, 3, 1, 2, 3, 2, 0],
        ] {
            assert_eq!(fixed(bad, 2), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_a_client_of_tls_1_3_signs_is_kept() {
        let chain = [vec![1], vec![2]];
        let message = tls_message(&[7; 32]);
        let proof = tls_proof(&chain, 0x0807, &message, &[9; 64]).unwrap();
        let proof: TlsProof = encoding::decode(&proof).unwrap();
        assert_eq!(proof.alg, "EdDSA");
        assert_eq!(proof.transcript, Bytes(vec![7; 32]));
        assert_eq!(proof.chain, [Bytes(vec![1]), Bytes(vec![2])]);
        let server = [
            &[b' '; 64][..],
            b"TLS 1.3, server CertificateVerify\0",
            &[7; 32],
        ]
        .concat();
        for (scheme, message) in [
            (0x0807, &server[..]),
            (0x0807, &message[1..]),
            (0x0807, b""),
            // RSA with PKCS #1, and P-521, which TLS 1.3 does not sign with here.
            (0x0401, &message),
            (0x0603, &message),
        ] {
            assert!(tls_proof(&chain, scheme, message, &[9; 64]).is_err());
        }
    }
}

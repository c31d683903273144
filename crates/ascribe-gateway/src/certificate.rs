//! User certificates by outside authorities.
//!
//! The library has checked the client's signature by the certified key, and of the certificate only
//! the time and that the key named in it signed it: anybody can make one like that. Everything that
//! makes it count is checked here, and the law says whose it is.

use std::net::IpAddr;

use ascribe_core::entry;
use ascribe_core::id::PersonId;
use ascribe_core::record::{Recorder, ShownCertificate};
use ascribe_core::statement::Serial;
use ascribe_core::time::Timestamp;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{Fingerprint, HashAlg};
use russh::keys::{Certificate, PublicKey};

use crate::handler::accepted;

/// Most principals of a certificate, as in OpenSSH.
const MAX_PRINCIPALS: usize = 256;

/// Whose certificate is this, and how does an entry name it? Otherwise: why it does not count.
pub(crate) fn holder(
    recorder: &dyn Recorder,
    certificate: &Certificate,
    from: Option<IpAddr>,
) -> Result<(PersonId, entry::Certificate), String> {
    if certificate.cert_type() != CertType::User {
        return Err("it is no user certificate".to_owned());
    }
    let key = PublicKey::from(certificate.public_key().clone());
    if !accepted(&key) {
        return Err("keys of its type are not accepted".to_owned());
    }
    let known = recorder.ca_keys();
    let known: Vec<Fingerprint> = known.iter().filter_map(|key| key.parse().ok()).collect();
    let now = recorder.now().millis().unsigned_abs() / 1000;
    certificate
        .validate_at(now, &known)
        .map_err(|_| "no registered authority signed it, or it is not valid now".to_owned())?;
    // Without principals a certificate would be anybody's.
    let principals = certificate.valid_principals();
    if principals.is_empty() || principals.len() > MAX_PRINCIPALS {
        return Err("it has no principals, or too many".to_owned());
    }
    for (name, value) in certificate.critical_options().iter() {
        let allowed = from.is_some_and(|from| ascribe_wire::source::allows(value, from));
        match name.as_str() {
            "source-address" if allowed => {}
            "source-address" => return Err("it is not for the client's address".to_owned()),
            // `force-command` and `verify-required` too: we do neither.
            other => {
                let other = ascribe_core::text::clean(other, 64);
                return Err(format!("its critical option `{other}` is not supported"));
            }
        }
    }
    let shown = ShownCertificate {
        ca: certificate
            .signature_key()
            .fingerprint(HashAlg::Sha256)
            .to_string(),
        key: key.fingerprint(HashAlg::Sha256).to_string(),
        key_id: certificate.key_id().to_owned(),
        not_after: end(certificate.valid_before()),
        principals: principals.to_vec(),
        serial: Serial(certificate.serial()),
    };
    recorder
        .person_by_certificate(&shown)
        .map_err(|denied| denied.message)
}

/// The certificate's end; none where it has none that a clock could reach.
fn end(valid_before: u64) -> Option<Timestamp> {
    let millis = i64::try_from(valid_before).ok()?.checked_mul(1000)?;
    let end = Timestamp::from_millis(millis);
    (end.millis() == millis).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_when_it_says_or_never() {
        for (valid_before, millis) in [
            (0, Some(0)),
            (1_764_000_000, Some(1_764_000_000_000)),
            (253_402_300_800, None),
            (u64::MAX / 1000, None),
            (u64::MAX, None),
        ] {
            assert_eq!(end(valid_before).map(Timestamp::millis), millis);
        }
    }
}

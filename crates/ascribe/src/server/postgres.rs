//! What the PostgreSQL gateway is run with: its certificate, and the credentials of its targets.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ascribe_core::record::BoxFuture;
use ascribe_gateway::{Credential, Credentials};
use ascribe_wire::pg::Secret;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::vault::Vault;
use crate::exit::{Attempt as _, Done, Failure};

/// Longest secret in a file, in bytes.
const MAX_SECRET: u64 = 4096;

/// The gateway's side of TLS at its own port.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Done<Arc<ServerConfig>> {
    let read = |path: &Path| format!("read `{}`", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .attempt(read(certificate))?
        .collect::<Result<_, _>>()
        .attempt(read(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).attempt(read(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .attempt("set up TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .attempt(format!("use `{}`", certificate.display()))?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

/// Passwords in files, read anew for each connection: a password that changed is used from then on.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    /// Where systemd lends them.
    lent: Option<PathBuf>,
}

impl Files {
    /// In this directory; where none is given, as systemd lends them, or else in the data directory.
    pub(crate) fn new(given: Option<&Path>, data: &Path) -> Self {
        let lent = || std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self {
            dir: given.map_or_else(|| data.join("credentials"), Path::to_owned),
            lent: given.map_or_else(lent, |_| None),
        }
    }

    fn find(&self, target: &str, account: &str) -> Result<Option<Secret>, String> {
        // Names of targets and accounts hold no `/`, and no `..`; the law saw to that.
        let lent = self.lent.as_ref();
        // One file systemd lends is one role's on one target: neither name holds an `@`, both may hold a dot.
        let lent = lent.map(|dir| dir.join(format!("{account}@{target}")));
        let own = self.dir.join(target).join(account);
        for path in lent.iter().chain([&own]) {
            match read_secret(path) {
                Ok(secret) => return Ok(Some(secret)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(format!(
                        "the gateway cannot read its credential `{}`: {error}",
                        path.display()
                    ));
                }
            }
        }
        Ok(None)
    }
}

/// A secret in a file that nobody else may read, without its line end.
pub(super) fn read_secret(path: &Path) -> std::io::Result<Secret> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(std::io::Error::other(
            "others may read it; take that away: chmod 600",
        ));
    }
    read(file)
}

/// The same of a file whose mode is not ours to set.
pub(super) fn read_lent(path: &Path) -> std::io::Result<Secret> {
    read(std::fs::File::open(path)?)
}

fn read(file: std::fs::File) -> std::io::Result<Secret> {
    use std::io::Read as _;
    // Never grows, so that no copy of it is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
    file.take(MAX_SECRET + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SECRET {
        return Err(std::io::Error::other("it is longer than 4096 bytes"));
    }
    let end = text.iter().rposition(|b| !matches!(b, b'\n' | b'\r'));
    let kept = end.and_then(|end| text.get(..=end)).unwrap_or_default();
    Ok(Secret::new(kept))
}

/// Where credentials come from: Vault, for what its configuration names; otherwise files.
pub(crate) struct Sources {
    pub(crate) files: Files,
    pub(crate) vault: Option<Vault>,
}

impl Credentials for Sources {
    fn credential<'a>(
        &'a self,
        target: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async move {
            if let Some(vault) = &self.vault
                && let Some(credential) = vault.credential(target, account).await?
            {
                return Ok(Some(credential));
            }
            let found = self.files.find(target, account)?;
            Ok(found.map(Credential::from))
        })
    }
}

/// The certificates of a file.
pub(crate) fn certificates(path: &Path) -> Done<Vec<Vec<u8>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .attempt(format!("read `{}`", path.display()))?
        .map(|found| found.map(|der| der.to_vec()))
        .collect();
    let all = all.attempt(format!("read `{}`", path.display()))?;
    if all.is_empty() {
        let why = format!("`{}` holds no certificate", path.display());
        return Err(Failure::usage(why).help("it is meant in PEM form"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_is_the_file_without_its_line_end_and_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            dir: dir.path().to_owned(),
            lent: None,
        };
        let found = || {
            files
                .find("db", "dba")
                .map(|s| s.map(|s| s.expose().to_vec()))
        };
        assert_eq!(found(), Ok(None));
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let file = dir.path().join("db/dba");
        std::fs::write(&file, "pass word\r\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(found().unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(found(), Ok(Some(b"pass word".to_vec())));
        // Changed, it counts at once.
        std::fs::write(&file, "next").unwrap();
        assert_eq!(found(), Ok(Some(b"next".to_vec())));
        std::fs::write(&file, vec![b'a'; 4097]).unwrap();
        assert!(found().unwrap_err().contains("longer"));
    }

    #[test]
    fn what_systemd_lends_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            dir: dir.path().join("own"),
            lent: Some(dir.path().to_owned()),
        };
        let file = dir.path().join("dba@db.one");
        std::fs::write(&file, "lent").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).unwrap();
        let found = files.find("db.one", "dba").unwrap().unwrap();
        assert_eq!(found.expose(), b"lent");
        assert!(files.find("db", "one.dba").unwrap().is_none());
    }
}

//! What an operator says of Vault: where it is, how the gateway logs in, and which credentials are there.
//!
//! One line each; a word that begins with `#` begins a comment:
//!
//! ```text
//! address https://vault.example.org:8200
//! ca /etc/ascribe/vault-ca.pem
//! namespace databases
//! auth approle role-id secret-id
//! credential dba@orders-db kv2 secret orders/dba password
//! credential etl@orders-db dynamic database etl
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ascribe_core::text::clean;

/// Longest file, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Longest path or name within Vault, in bytes.
const MAX_PATH: usize = 512;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// The URL before `/v1`.
    pub(super) address: String,
    /// Who signed its certificate, where that is not for the machine's own roots to say.
    pub(super) ca: Option<PathBuf>,
    pub(super) namespace: Option<String>,
    pub(super) auth: Auth,
    /// By account and target.
    pub(super) credentials: BTreeMap<(String, String), Source>,
}

/// How the gateway logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// By a token in a file, which somebody else renews.
    Token(PathBuf),
    /// As an AppRole: its id and its secret id, in files.
    AppRole {
        mount: String,
        role: PathBuf,
        secret: PathBuf,
    },
    /// By a JSON Web Token in a file: of a Kubernetes service account, or of any issuer that Vault knows.
    Jwt {
        mount: String,
        role: String,
        token: PathBuf,
    },
}

/// Where a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A field of a secret in version 1 or 2 of the KV engine.
    Kv {
        version: Version,
        mount: String,
        path: String,
        field: String,
    },
    /// A role of the database engine: made for each session, or one that stays and whose password Vault changes.
    Database {
        stays: bool,
        mount: String,
        role: String,
        /// It acts as itself, and not as the account.
        as_itself: bool,
    },
}

/// Of the KV engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Source {
    /// The path that it is read at, below `/v1/`.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Kv {
                version,
                mount,
                path,
                ..
            } => match version {
                Version::One => format!("{mount}/{path}"),
                Version::Two => format!("{mount}/data/{path}"),
            },
            Self::Database {
                stays, mount, role, ..
            } => match stays {
                true => format!("{mount}/static-creds/{role}"),
                false => format!("{mount}/creds/{role}"),
            },
        }
    }
}

impl Config {
    /// Reads the file; it is small, and is read whenever it is needed.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let shown = file.display();
        let read = || {
            let mut text = String::new();
            let mut file = std::fs::File::open(file)?.take(MAX_FILE + 1);
            file.read_to_string(&mut text).map(|_| text)
        };
        let text = read().map_err(|error| format!("cannot read `{shown}`: {error}"))?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("`{shown}` is longer than {MAX_FILE} bytes"));
        }
        let lent = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let beside = file.parent().unwrap_or(Path::new(".")).to_owned();
        Self::parse(&text, &lent.unwrap_or(beside)).map_err(|why| format!("`{shown}`: {why}"))
    }

    /// `dir` is where files are that are named without one: what systemd lends, or beside the configuration.
    fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let (mut address, mut ca, mut namespace, mut auth) = (None, None, None, None);
        let mut credentials = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words = line.split_whitespace();
            let words: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
            let wrong = |why: &str| format!("line {number}: {why}");
            let twice = || wrong("it is said before");
            let again = match words[..] {
                [] => false,
                ["address", url] => address
                    .replace(url.trim_end_matches('/').to_owned())
                    .is_some(),
                ["ca", file] => ca.replace(dir.join(file)).is_some(),
                ["namespace", name] => {
                    let name = within(name.trim_matches('/')).map_err(|why| wrong(&why))?;
                    namespace.replace(name).is_some()
                }
                ["auth", ref rest @ ..] => {
                    let how = auth_of(rest, dir).map_err(|why| wrong(&why))?;
                    auth.replace(how).is_some()
                }
                ["credential", place, ref rest @ ..] => {
                    let (account, target) = place
                        .rsplit_once('@')
                        .ok_or_else(|| wrong("a credential is of ACCOUNT@TARGET"))?;
                    let source = source_of(rest).map_err(|why| wrong(&why))?;
                    let place = (account.to_owned(), target.to_owned());
                    credentials.insert(place, source).is_some()
                }
                [other, ..] => {
                    let other = clean(other, 40);
                    return Err(wrong(&format!(
                        "`{other}` with what follows is not understood; lines are `address URL`, `ca FILE`, \
                         `namespace NAME`, `auth ...` and `credential ACCOUNT@TARGET ...`"
                    )));
                }
            };
            if again {
                return Err(twice());
            }
        }
        Ok(Self {
            address: address.ok_or("no line says `address URL`")?,
            ca,
            namespace,
            auth: auth.ok_or("no line says how to log in: `auth approle ROLE-ID-FILE SECRET-ID-FILE`, or another")?,
            credentials,
        })
    }
}

fn auth_of(words: &[&str], dir: &Path) -> Result<Auth, String> {
    let mount = |given: Option<&&str>, usual: &str| within(given.unwrap_or(&usual));
    match *words {
        ["token", file] => Ok(Auth::Token(dir.join(file))),
        ["approle", role, secret, ref rest @ ..] if rest.len() < 2 => Ok(Auth::AppRole {
            mount: mount(rest.first(), "approle")?,
            role: dir.join(role),
            secret: dir.join(secret),
        }),
        [kind @ ("jwt" | "kubernetes"), role, token, ref rest @ ..] if rest.len() < 2 => {
            Ok(Auth::Jwt {
                mount: mount(rest.first(), kind)?,
                role: role.to_owned(),
                token: dir.join(token),
            })
        }
        _ => Err(
            "a login is `auth token FILE`, `auth approle ROLE-ID-FILE SECRET-ID-FILE [MOUNT]`, `auth jwt ROLE FILE \
             [MOUNT]` or `auth kubernetes ROLE FILE [MOUNT]`"
                .to_owned(),
        ),
    }
}

fn source_of(words: &[&str]) -> Result<Source, String> {
    match *words {
        [kind @ ("kv1" | "kv2"), mount, path, field] => Ok(Source::Kv {
            version: if kind == "kv1" {
                Version::One
            } else {
                Version::Two
            },
            mount: within(mount)?,
            path: within(path)?,
            field: field.to_owned(),
        }),
        [kind @ ("dynamic" | "static"), mount, role, ref rest @ ..]
            if matches!(rest, [] | ["as-itself"]) =>
        {
            Ok(Source::Database {
                stays: kind == "static",
                mount: within(mount)?,
                role: within(role)?,
                as_itself: !rest.is_empty(),
            })
        }
        _ => Err(
            "a credential is at `kv1 MOUNT PATH FIELD`, `kv2 MOUNT PATH FIELD`, `dynamic MOUNT ROLE [as-itself]` or \
             `static MOUNT ROLE [as-itself]`"
                .to_owned(),
        ),
    }
}

/// A path within Vault: nothing that means something else in a URL.
fn within(path: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.~@+".contains(&b);
    let is_part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits);
    if path.len() <= MAX_PATH && path.split('/').all(is_part) {
        return Ok(path.to_owned());
    }
    let shown = clean(path, 64);
    Err(format!(
        "`{shown}` is no path that is understood: letters, digits and `-_.~@+`, with `/` between"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "# ours\naddress https://vault.example.org:8200/\nca vault-ca.pem # its own\nnamespace teams/db\n\
        auth approle role-id /run/secret-id\n\ncredential dba@orders-db kv2 secret orders/dba password\n\
        credential old@orders-db kv1 kv old pass\ncredential etl@orders-db dynamic database etl\n\
        credential cron@orders-db static database cron as-itself\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/ascribe"))
    }

    #[test]
    fn each_line_says_one_thing() {
        let config = parse(WHOLE).unwrap();
        assert_eq!(config.address, "https://vault.example.org:8200");
        assert_eq!(config.ca, Some(PathBuf::from("/etc/ascribe/vault-ca.pem")));
        assert_eq!(config.namespace.as_deref(), Some("teams/db"));
        let auth = Auth::AppRole {
            mount: "approle".to_owned(),
            role: PathBuf::from("/etc/ascribe/role-id"),
            secret: PathBuf::from("/run/secret-id"),
        };
        assert_eq!(config.auth, auth);
        let path = |account: &str| {
            let place = (account.to_owned(), "orders-db".to_owned());
            config.credentials[&place].path()
        };
        assert_eq!(path("dba"), "secret/data/orders/dba");
        assert_eq!(path("old"), "kv/old");
        assert_eq!(path("etl"), "database/creds/etl");
        assert_eq!(path("cron"), "database/static-creds/cron");
    }

    #[test]
    fn every_way_to_log_in_has_its_usual_mount_or_another() {
        let auth = |line: &str| {
            parse(&format!("address https://v\nauth {line}\n"))
                .unwrap()
                .auth
        };
        let token = PathBuf::from("/var/run/token");
        let jwt = |mount: &str| Auth::Jwt {
            mount: mount.to_owned(),
            role: "gw".to_owned(),
            token: token.clone(),
        };
        assert_eq!(auth("token /var/run/token"), Auth::Token(token.clone()));
        assert_eq!(auth("jwt gw /var/run/token"), jwt("jwt"));
        assert_eq!(auth("kubernetes gw /var/run/token"), jwt("kubernetes"));
        assert_eq!(
            auth("kubernetes gw /var/run/token east/k8s"),
            jwt("east/k8s")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (line, said) in [
            ("adress https://v", "line 1"),
            ("address", "not understood"),
            ("auth userpass x", "a login is"),
            ("auth token", "a login is"),
            ("credential dba kv2 secret a b", "ACCOUNT@TARGET"),
            ("credential dba@db kv2 secret a", "a credential is at"),
            ("credential dba@db kv3 secret a b", "a credential is at"),
            ("credential dba@db kv2 secret ../sys/raw b", "no path"),
            ("credential dba@db kv2 secret a?version=1 b", "no path"),
            ("credential dba@db kv2 secret a//b c", "no path"),
            ("credential dba@db kv2 secret %2e%2e/a c", "no path"),
            (
                "credential dba@db dynamic database etl as-root",
                "a credential is at",
            ),
            (
                "address https://v\naddress https://w",
                "line 2: it is said before",
            ),
            ("", "no line says `address URL`"),
            ("address https://v", "how to log in"),
        ] {
            let why = parse(line).unwrap_err();
            assert!(why.contains(said), "{line}: {why}");
        }
    }
}

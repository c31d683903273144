//! Which crate may depend on which, and what every crate has.

#[cfg(test)]
mod edges {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::process::Command;

    use serde_json::Value;

    /// Our crates and those of ours that each may use outside its tests.
    const ALLOWED: &[(&str, &[&str])] = &[
        ("ascribe-tlog", &[]),
        ("ascribe-core", &["ascribe-tlog"]),
        ("ascribe-evidence", &["ascribe-core"]),
        ("ascribe-wire", &["ascribe-core"]),
        ("ascribe-sql", &[]),
        ("ascribe-ledger", &["ascribe-core", "ascribe-tlog"]),
        (
            "ascribe-gateway",
            &[
                "ascribe-core",
                "ascribe-wire",
                "ascribe-evidence",
                "ascribe-sql",
                "ascribe-tlog",
            ],
        ),
        (
            "ascribe-verify",
            &["ascribe-core", "ascribe-tlog", "ascribe-evidence"],
        ),
        (
            "ascribe",
            &[
                "ascribe-core",
                "ascribe-evidence",
                "ascribe-gateway",
                "ascribe-ledger",
                "ascribe-sql",
                "ascribe-tlog",
                "ascribe-verify",
                "ascribe-wire",
            ],
        ),
        ("ascribe-sim", &[]),
    ];
    /// Crates that neither talk to a network nor run tasks.
    const PURE: &[&str] = &[
        "ascribe-tlog",
        "ascribe-core",
        "ascribe-wire",
        "ascribe-verify",
        "ascribe-evidence",
    ];
    const IMPURE: &[&str] = &["tokio", "tokio-util", "tokio-rustls", "russh", "rustls"];

    fn packages() -> BTreeMap<String, Value> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let out = Command::new(cargo)
            .args([
                "metadata",
                "--no-deps",
                "--offline",
                "--format-version",
                "1",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
        let list = metadata["packages"].as_array().unwrap();
        list.iter()
            .map(|p| (p["name"].as_str().unwrap().to_owned(), p.clone()))
            .collect()
    }

    /// Names of dependencies; those for tests only, or all others.
    fn dependencies(package: &Value, dev: bool) -> BTreeSet<&str> {
        package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| (d["kind"].as_str() == Some("dev")) == dev)
            .map(|d| d["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn each_crate_uses_only_the_crates_it_may() {
        let packages = packages();
        let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
        let found: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
        assert_eq!(found, known);
        for (name, allowed) in ALLOWED {
            for used in dependencies(&packages[*name], false) {
                let ours = known.contains(used);
                assert!(!ours || allowed.contains(&used), "{name} -> {used}");
            }
        }
    }

    #[test]
    fn nothing_depends_on_the_test_crate() {
        for (name, package) in packages() {
            for dev in [false, true] {
                let all = dependencies(&package, dev);
                assert!(!all.contains("ascribe-sim"), "{name}");
            }
        }
    }

    #[test]
    fn pure_crates_use_no_network_and_no_runtime() {
        let packages = packages();
        for name in PURE {
            for used in dependencies(&packages[*name], false) {
                assert!(!IMPURE.contains(&used), "{name} -> {used}");
            }
        }
    }

    #[test]
    fn each_crate_is_apache_2_and_has_the_lints() {
        for (name, package) in packages() {
            assert_eq!(package["license"].as_str(), Some("Apache-2.0"), "{name}");
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let text = std::fs::read_to_string(manifest).unwrap();
            assert!(text.contains("\n[lints]\nworkspace = true\n"), "{name}");
            assert_eq!(package["publish"], serde_json::json!([]), "{name}");
        }
    }
}

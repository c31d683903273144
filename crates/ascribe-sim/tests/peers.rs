//! Independent programs, written from the specifications, judge the same bundles and trees:
//! `peers/check.py` on Python's standard library and stock `ssh-keygen`, `peers/check.go` on
//! golang.org/x/mod/sumdb.

#[cfg(test)]
mod peers {
    #[path = "../tamper/world.rs"]
    mod world;

    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

    use ascribe_tlog::TrustPolicy;
    use ascribe_verify::{Report, Verdict, read_tree, verify_bundle, verify_entries};

    use self::world::World;

    /// What only the law finds, which the peers do not judge.
    const LAW: &[&str] = &["outside_grant", "self_approved", "unlawful"];
    /// Where Debian's golang-golang-x-mod-dev puts its source.
    const GO_PATH: &str = "/usr/share/gocode";

    fn here(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn find(program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .find(|file| file.is_file())
    }

    /// Past the capture of tests that pass.
    fn skipped(what: &str, why: &str) {
        writeln!(std::io::stderr(), "SKIPPED: {what}, because {why}").unwrap();
    }

    /// What a peer says of each path: nothing, or why it refuses.
    type Verdicts = BTreeMap<PathBuf, Option<String>>;

    fn ask(mut peer: Command, paths: &[PathBuf]) -> Verdicts {
        let out = peer.args(paths).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let mut verdicts = Verdicts::new();
        for line in said.lines() {
            if let Some(path) = line.strip_prefix("ok ") {
                verdicts.insert(path.into(), None);
            } else if let Some(refusal) = line.strip_prefix("refused ") {
                let (path, why) = refusal.split_once(": ").unwrap();
                verdicts.insert(path.into(), Some(why.to_owned()));
            }
        }
        assert_eq!(verdicts.len(), paths.len(), "{out:#?}");
        let refused = verdicts.values().any(Option::is_some);
        let code = if refused { 4 } else { 0 };
        assert_eq!(out.status.code(), Some(code), "{out:#?}");
        verdicts
    }

    fn python(policy: &Path, paths: &[PathBuf]) -> Option<Verdicts> {
        let Some(python) = find("python3") else {
            skipped("the checks in Python", "python3 is not installed");
            return None;
        };
        let mut peer = Command::new(python);
        peer.arg(here("tests/peers/check.py")).arg(policy);
        Some(ask(peer, paths))
    }

    /// The Go program, built once.
    fn go_program() -> Option<&'static Path> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let source = Path::new(GO_PATH).join("src/golang.org/x/mod/sumdb/tlog");
            let (Some(go), true) = (find("go"), source.is_dir()) else {
                let why = "golang-go and golang-golang-x-mod-dev are not installed";
                skipped("the checks in Go", why);
                return None;
            };
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
            fs::create_dir_all(&dir).unwrap();
            let program = dir.join("check");
            let out = Command::new(go)
                .args(["build", "-o"])
                .arg(&program)
                .arg(here("tests/peers/check.go"))
                .env("GO111MODULE", "off")
                .env("GOPATH", GO_PATH)
                .env("GOCACHE", dir.join("cache"))
                .output()
                .unwrap();
            assert!(out.status.success(), "{out:#?}");
            Some(program)
        });
        built.as_deref()
    }

    fn go(trust: &TrustPolicy, paths: &[PathBuf]) -> Option<Verdicts> {
        let mut peer = Command::new(go_program()?);
        peer.arg(trust.logs[0].to_string());
        Some(ask(peer, paths))
    }

    /// Ours; a tree that cannot be read has no report.
    fn ours(path: &Path, trust: &TrustPolicy) -> Option<Report> {
        if !path.is_dir() {
            return Some(verify_bundle(&fs::read(path).unwrap(), trust));
        }
        let (note, entries) = read_tree(path, trust).ok()?;
        let report = verify_entries(&note, &entries, &[], trust, "withheld", &mut |_| {});
        Some(report)
    }

    fn accepted(report: Option<&Report>) -> bool {
        report.is_some_and(|report| report.verdict == Verdict::Verified)
    }

    /// A real ledger of two full tiles and more, exported by the binary.
    struct Exported {
        world: World,
        policy: PathBuf,
        tree: PathBuf,
        bundle: PathBuf,
    }

    /// One test at a time: until it is another program, a child of another test's thread holds
    /// every lock of ours, and the binary takes the server to be running.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl Exported {
        fn new() -> Self {
            let world = World::new(0);
            let ledger = world.open(&world.data()).unwrap();
            let grant = world.grant(&ledger);
            let session = world.run(&ledger, grant, 4);
            world.run(&ledger, grant, 170);
            ledger.shutdown();
            drop(ledger);
            let policy = world.path("trust.policy");
            fs::write(&policy, world.trust().to_text()).unwrap();
            let (tree, bundle) = (world.path("tree"), world.path("session.bundle"));
            let exported = Self {
                world,
                policy,
                tree,
                bundle,
            };
            let to = |path: &Path| path.to_str().unwrap().to_owned();
            let data = to(&exported.world.data());
            let (tree, bundle) = (to(&exported.tree), to(&exported.bundle));
            let session = session.to_string();
            exported.ascribe(&["--data", &data, "ledger", "export", "--to", &tree]);
            exported.ascribe(&["--data", &data, "export", &session, "-f", &bundle]);
            let policy = to(&exported.policy);
            for path in [&tree, &bundle, &data] {
                exported.ascribe(&["verify", path, "--trust", &policy]);
            }
            exported
        }

        fn ascribe(&self, args: &[&str]) {
            let out = self.world.ascribe(args);
            assert!(out.status.success(), "{args:?}: {out:#?}");
        }
    }

    #[test]
    fn the_peers_accept_what_the_binary_exports() {
        let _alone = alone();
        let exported = Exported::new();
        let paths = [exported.tree.clone(), exported.bundle.clone()];
        let trust = exported.world.trust();
        for path in &paths {
            assert!(accepted(ours(path, &trust).as_ref()), "{path:?}");
        }
        for name in ["tile/0/001", "tile/entries/001", "tile/1/000.p/2"] {
            assert!(exported.tree.join(name).is_file(), "{name}");
        }
        let peers = [python(&exported.policy, &paths), go(&trust, &paths)];
        for said in peers.into_iter().flatten() {
            assert!(said.values().all(Option::is_none), "{said:#?}");
        }
    }

    /// The vectors of the verifier, and the policy that they are for.
    fn vectors() -> (PathBuf, Vec<PathBuf>) {
        let testdata = here("../ascribe-verify/testdata");
        let mut paths: Vec<PathBuf> = fs::read_dir(&testdata)
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "bundle"))
            .collect();
        paths.sort();
        assert!(paths.len() > 40, "{}", paths.len());
        (testdata.join("trust.policy"), paths)
    }

    /// What is counted of a provider names it, and has the entry that set it, or the yes to that, as its parent.
    const COUNTED: &str = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
import check

def said(log, index, say):
    seen = {"size": 0, "root": check.spell(bytes(32))}
    text = {"v": 1, "log": "x", "by": "p", "at": "t", "id": f"s-{index}", "seen": seen, "say": say}
    text = json.dumps(text, sort_keys=True, separators=(",", ":"))
    log.statement(index, {"text": text, "sig": ""})

log = check.Log("x", None)
said(log, 3, {"provider-set": {"name": "idp"}})
said(log, 4, {"directory-set": {"name": "idp"}})
said(log, 5, {"approval": {"of": "s-3"}})
said(log, 6, {"provider-set": {"name": "other"}})
said(log, 7, {"offboard": {"person": "p"}})
said(log, 8, {"approval": {"of": "s-7"}})
for named, whose, parents in json.loads(sys.argv[2]):
    body = {"from": "a", "refused": [{"code": "c", "count": 1}], "until": "b"}
    if whose is not None:
        body[named] = whose
    refs = [{"rel": rel, "hash": "", "index": at} for rel, at in parents]
    entry = {"at": "c", "refs": refs, "writer": {"id": "server"}}
    try:
        log.counted(9, entry, body, named)
        print("ok")
    except check.Refused as why:
        print(why)
"#;

    #[test]
    fn what_is_counted_has_the_provider_or_directory_that_it_names_as_its_parent() {
        let Some(python) = find("python3") else {
            skipped("the checks in Python", "python3 is not installed");
            return;
        };
        let good = serde_json::json!([
            ["provider", null, []],
            ["provider", "idp", [["provider", 3]]],
            ["provider", "idp", [["provider", 5]]],
            ["provider", "other", [["provider", 6]]],
            ["directory", "idp", [["directory", 4]]],
        ]);
        let bad = serde_json::json!([
            ["provider", null, [["provider", 3]]],
            ["provider", "idp", []],
            ["provider", "idp", [["target", 3]]],
            ["provider", "idp", [["directory", 4]]],
            ["provider", "idp", [["provider", 4]]],
            ["provider", "idp", [["provider", 6]]],
            ["provider", "idp", [["provider", 8]]],
            ["provider", "idp", [["provider", 3], ["provider", 5]]],
            ["provider", "nobody", [["provider", 3]]],
            ["provider", "nobody", [["provider", 2]]],
            ["directory", "idp", [["provider", 3]]],
            ["directory", "other", [["directory", 6]]],
        ]);
        for (cases, said) in [(good, "ok"), (bad, "entry 9: its parent")] {
            let out = Command::new(&python)
                .args(["-B", "-c", COUNTED])
                .arg(here("tests/peers"))
                .arg(cases.to_string())
                .output()
                .unwrap();
            let lines = String::from_utf8(out.stdout.clone()).unwrap();
            let lines: Vec<&str> = lines.lines().collect();
            let expected = vec![said; cases.as_array().unwrap().len()];
            assert_eq!(lines, expected, "{out:#?}");
        }
    }

    #[test]
    fn the_binary_exits_with_0_or_4_as_a_vectors_name_says() {
        let _alone = alone();
        let world = World::new(0);
        let (policy, paths) = vectors();
        for path in &paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            let (path, policy) = (path.to_str().unwrap(), policy.to_str().unwrap());
            let out = world.ascribe(&["-o", "json", "verify", path, "--trust", policy]);
            let refuse = name.starts_with("refuse-");
            let expected = if refuse { 4 } else { 0 };
            assert_eq!(out.status.code(), Some(expected), "{name}: {out:#?}");
            let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
            let verdict = if refuse { "failed" } else { "verified" };
            assert_eq!(report["verdict"], verdict, "{name}");
        }
    }

    #[test]
    fn the_peers_judge_the_vectors_as_we_do_apart_from_the_law() {
        let _alone = alone();
        let (policy, paths) = vectors();
        let trust = TrustPolicy::parse(&fs::read_to_string(&policy).unwrap()).unwrap();
        let (from_python, from_go) = (python(&policy, &paths), go(&trust, &paths));
        let mut compared = 0;
        for path in &paths {
            let report = ours(path, &trust).unwrap();
            let code = report.problems.first().map(|problem| problem.code);
            if let Some(said) = &from_python {
                let why = &said[path];
                match code {
                    None => assert_eq!(*why, None, "{path:?}"),
                    Some(code) if LAW.contains(&code) => {}
                    Some(_) => {
                        compared += 1;
                        // By a rule that it knows, not by an error of its own.
                        let ruled = why.as_deref().is_some_and(|w| w.starts_with("Refused("));
                        assert!(ruled, "{path:?}: {why:?}, ours: {report:#?}");
                    }
                }
            }
            if let Some(said) = &from_go {
                let refused = said[path].is_some();
                assert!(code.is_some() || !refused, "{path:?}: {:?}", said[path]);
                let of_the_tree = report.problems.iter().any(|problem| {
                    problem.promise == "every entry is in the signed tree"
                        || problem.promise == "only a trusted log proves anything"
                });
                assert!(refused || !of_the_tree, "{path:?}");
            }
        }
        assert!(from_python.is_none() || compared > 20, "{compared}");
    }

    #[test]
    fn the_peers_refuse_a_spoilt_bundle_as_we_do() {
        let _alone = alone();
        let exported = Exported::new();
        let trust = exported.world.trust();
        let good = fs::read(&exported.bundle).unwrap();
        let mut paths = Vec::new();
        let mut put = |bytes: Vec<u8>| {
            let path = exported
                .world
                .path(&format!("spoilt-{}.bundle", paths.len()));
            fs::write(&path, bytes).unwrap();
            paths.push(path);
        };
        for n in 0..150 {
            let at = (n * 7919 + 13) % good.len();
            let mut bad = good.clone();
            bad[at] ^= [1, 0x20, 0x80][n % 3];
            put(bad);
        }
        let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
        for at in 0..lines.len() {
            let (before, after) = lines.split_at(at);
            put([before, &after[1..]].concat().concat());
            put([before, &after[..1], after].concat().concat());
        }
        let reports: Vec<Report> = paths.iter().map(|p| ours(p, &trust).unwrap()).collect();
        let refused = reports.iter().filter(|r| r.verdict == Verdict::Failed);
        assert!(refused.count() > paths.len() / 2);
        let Some(said) = python(&exported.policy, &paths) else {
            return;
        };
        for (path, report) in paths.iter().zip(&reports) {
            let (ours, theirs) = (report.verdict == Verdict::Verified, &said[path]);
            assert_eq!(ours, theirs.is_none(), "{path:?}: {theirs:?}, {report:#?}");
        }
    }

    #[test]
    fn the_peers_refuse_a_spoilt_tree_as_we_do() {
        let _alone = alone();
        let exported = Exported::new();
        let trust = exported.world.trust();
        let files = [
            "checkpoint",
            "tile/entries/000",
            "tile/entries/001",
            "tile/0/000",
            "tile/0/001",
            "tile/1/000.p/2",
        ];
        let mut paths = Vec::new();
        let mut put = |name: &str, content: Option<&[u8]>| {
            let dir = exported.world.path(&format!("spoilt-{}.tree", paths.len()));
            copy(&exported.tree, &dir);
            match content {
                Some(bytes) => fs::write(dir.join(name), bytes).unwrap(),
                None => fs::remove_file(dir.join(name)).unwrap(),
            }
            paths.push(dir);
        };
        for name in files {
            let good = fs::read(exported.tree.join(name)).unwrap();
            for part in 1..5 {
                let mut bad = good.clone();
                bad[good.len() * part / 5] ^= 1;
                put(name, Some(&bad));
            }
            put(name, Some(&good[..good.len() - 1]));
            put(name, Some(&[&good[..], b"\n"].concat()));
            put(name, None);
        }
        for path in &paths {
            assert!(!accepted(ours(path, &trust).as_ref()), "{path:?}");
        }
        // The whole one last: what refuses everything proves nothing.
        paths.push(exported.tree.clone());
        let peers = [python(&exported.policy, &paths), go(&trust, &paths)];
        for said in peers.into_iter().flatten() {
            let passed: Vec<_> = said.iter().filter(|(_, why)| why.is_none()).collect();
            assert_eq!(passed, [(&exported.tree, &None)]);
        }
    }

    /// Copies a directory.
    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
}

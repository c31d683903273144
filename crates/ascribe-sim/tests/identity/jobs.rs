//! Jobs whose token a program gives them: at Buildkite, at CircleCI, in a pod of Kubernetes. In each program's place is one that
//! takes the documented words and no others, and asks an issuer of ours for what the documentation says is in the token.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::agent::Agent;
use super::idp::Idp;
use super::providers::Provider;
use super::world::{Out, World};

/// The claims that such a job's token has, apart from what every token has.
fn claims(kind: &str) -> Value {
    let file = format!("../ascribe-evidence/tests/token/claims/{kind}.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut claims: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for every in ["iss", "iat", "nbf", "exp", "jti"] {
        claims.as_object_mut().unwrap().remove(every);
    }
    claims
}

/// A demo with a workload of that kind, which has a grant; and where its job runs.
struct Job {
    kind: &'static str,
    issuer: Idp,
    world: World,
    agent: Agent,
    bin: PathBuf,
}

impl Job {
    fn of(kind: &'static str, rule: &[&str]) -> Option<Self> {
        let issuer = Idp::of_jobs("nobody's")?;
        let world = World::new();
        world.add_provider(&Provider {
            name: "jobs",
            kind,
            issuer: &issuer.issuer,
            audience: "ascribe",
            jwks: Some(&format!("{}/jwks", issuer.issuer)),
        });
        world.add_workload("jobs", rule);
        world.grant_workload();
        let bin = world.path("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(world.path("claims.json"), claims(kind).to_string()).unwrap();
        Some(Self {
            kind,
            agent: Agent::start(&world),
            issuer,
            world,
            bin,
        })
    }

    /// Puts a program into the job's path: it is called with these words, of which `audience` sets `$audience`, and prints
    /// a token.
    fn program(&self, name: &str, words: &str, audience: &str) {
        let (issuer, claims) = (&self.issuer.issuer, self.world.path("claims.json"));
        let text = format!(
            "#!/bin/sh\nset -eu\n{words}\n{audience}\nexec curl -sfG --max-time 20 '{issuer}/mint' \
             --data-urlencode \"audience=$audience\" --data-urlencode 'claims@{}'\n",
            claims.display()
        );
        self.write(name, &text);
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.bin.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.agent.command(&self.world, args);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        command
    }

    fn log_in(&self, more: &[&str]) -> Out {
        let args = ["login", "--workload", "deploy-shop", "--for", "1h"];
        let mut command = self.command(&[&args, more].concat());
        self.world.program_as_is(&mut command)
    }

    /// Whoever acted, as the only action of that run has it.
    fn actor(&self, run: &str) -> Value {
        let actions = self.world.actions(&["--run", run]);
        assert_eq!(actions.len(), 1, "{actions:?}");
        let actor = actions[0]["who"]["chain"][0].clone();
        assert_eq!(actor["kind"], "workload", "{actor}");
        assert_eq!(actor["display"], "deploy-shop");
        assert_eq!(actor["owner"], self.world.person("operator").0.as_str());
        assert_eq!(actor["assurance"], 2, "{actor}");
        actor
    }

    /// What the same job is told when its token says something else.
    fn another(&self, change: impl FnOnce(&mut Value), more: &[&str]) -> String {
        let mut other = claims(self.kind);
        change(&mut other);
        std::fs::write(self.world.path("claims.json"), other.to_string()).unwrap();
        self.log_in(more).exits(2).stderr
    }
}

#[test]
fn a_job_of_buildkite_acts_as_its_build_and_commit() {
    let rule = [
        "pipeline_id=01890000-0000-4000-8000-000000000004",
        "build_branch=main",
    ];
    let Some(job) = Job::of("buildkite", &rule) else {
        return;
    };
    // Outside of a job there is no such program.
    let out = job.log_in(&[]).exits(1);
    assert!(out.stderr.contains("buildkite-agent"), "{out:?}");
    job.program(
        "buildkite-agent",
        r#"[ $# = 4 ] && [ "$1 $2 $3" = "oidc request-token --audience" ]"#,
        "audience=$4",
    );
    job.log_in(&[]).exits(0);
    job.agent.ssh(&job.world, "echo built").exits(0);
    let actor = job.actor("1");
    assert_eq!(actor["run"]["provider"], "buildkite", "{actor}");
    assert_eq!(actor["run"]["job"], "01890000-0000-4000-8000-000000000002");
    assert_eq!(actor["code"]["ref"], "main");
    assert_eq!(
        actor["code"]["repo"],
        "01890000-0000-4000-8000-000000000004"
    );
    assert_eq!(actor["trigger"]["event"], "ui");
    let by_commit = ["--commit", "0123456789abcdef0123456789abcdef01234567"];
    assert_eq!(job.world.actions(&by_commit).len(), 1);
    let told = job.another(|c| c["pipeline_id"] = "another".into(), &[]);
    assert!(
        told.contains("does not meet the workload's conditions"),
        "{told}"
    );
}

#[test]
fn a_job_of_circleci_acts_as_its_workflow_and_the_record_says_that_no_commit_is_known() {
    let rule = [
        "oidc.circleci.com/project-id=5ad0c2bd-0000-4000-8000-000000000005",
        "oidc.circleci.com/vcs-origin=github.com/example-org/app",
        "oidc.circleci.com/vcs-ref=refs/heads/main",
    ];
    let Some(job) = Job::of("circleci", &rule) else {
        return;
    };
    job.program(
        "circleci",
        r#"[ $# = 5 ] && [ "$1 $2 $3 $4" = "run oidc get --claims" ]"#,
        r#"audience=$(node -p 'JSON.parse(process.argv[1]).aud' "$5")"#,
    );
    job.log_in(&[]).exits(0);
    job.agent.ssh(&job.world, "echo tested").exits(0);
    let actor = job.actor("5ad0c2bd-0000-4000-8000-000000000006");
    assert_eq!(actor["run"]["provider"], "circleci", "{actor}");
    assert_eq!(actor["run"]["job"], "5ad0c2bd-0000-4000-8000-000000000003");
    assert_eq!(actor["code"]["ref"], "refs/heads/main");
    assert!(actor["code"]["commit"].is_null(), "{actor}");
    let missing = actor["missing"].to_string();
    assert!(missing.contains("does not name the commit"), "{missing}");
    assert_eq!(
        actor["trigger"]["id"],
        "5ad0c2bd-0000-4000-8000-000000000007"
    );
    // A person who has a shell in the job is not the job.
    let shell = |c: &mut Value| c["oidc.circleci.com/ssh-rerun"] = true.into();
    let told = job.another(shell, &[]);
    assert!(told.contains("a person has a shell in it"), "{told}");
}

#[test]
fn a_pod_acts_by_the_token_that_is_bound_to_it() {
    let rule = [
        "kubernetes.io/namespace=deploy",
        "kubernetes.io/serviceaccount/name=deployer",
    ];
    let Some(job) = Job::of("kubernetes", &rule) else {
        return;
    };
    // Where its token comes from has to be said.
    let out = job.log_in(&[]).exits(3);
    assert!(out.stderr.contains("--token-command"), "{out:?}");
    let (pod, uid) = ("deploy-7f9c", "5e0bd49b-f040-43b0-99b7-22765a53f7f3");
    let bound = format!(
        "create token deployer --bound-object-kind Pod --bound-object-name {pod} --bound-object-uid {uid} --audience"
    );
    let words = format!(
        "audience=; for word in \"$@\"; do said=\"${{said:-}}${{said:+ }}$audience\"; audience=$word; done; [ \"$said\" = '{bound}' ]"
    );
    job.program("kubectl", &words, "");
    let mint = job.bin.join("mint.sh");
    let text = format!("exec kubectl {bound} \"$ASCRIBE_AUDIENCE\"\n");
    std::fs::write(&mint, text).unwrap();
    let command = format!("sh '{}'", mint.display());
    let more = ["--token-command", command.as_str()];
    job.log_in(&more).exits(0);
    job.agent.ssh(&job.world, "echo rolled out").exits(0);
    let actor = job.actor(uid);
    assert_eq!(actor["run"]["provider"], "kubernetes", "{actor}");
    let missing = actor["missing"].to_string();
    assert!(missing.contains("neither the code"), "{missing}");
    assert!(actor["code"].is_null(), "{actor}");
    // Neither another service account nor a token that the cluster's own API takes.
    let other = |c: &mut Value| c["kubernetes.io"]["serviceaccount"]["name"] = "default".into();
    let told = job.another(other, &more);
    assert!(
        told.contains("does not meet the workload's conditions"),
        "{told}"
    );
    let issuer = job.issuer.issuer.clone();
    let live = move |c: &mut Value| c["aud"] = issuer.into();
    let told = job.another(live, &more);
    assert!(told.contains("the cluster's own API"), "{told}");
    // Nor one that lasts.
    let long = |c: &mut Value| c["kubernetes.io"]["warnafter"] = 1_795_000_600.into();
    let told = job.another(long, &more);
    assert!(told.contains("warnafter"), "{told}");
}

//! How each provider names the run, the code and what started it, and what it leaves unsaid.

use ascribe_core::identity::{Binding, Code, Protection, Provider, ProviderKind, Run, Trigger};
use ascribe_core::law::Denied;

use super::claims::{malformed, plain};
use super::json::{Json, Object};

/// What a workload's token says of its run. People's tokens say nothing of it.
#[derive(Debug, Default)]
pub(super) struct About {
    pub(super) code: Option<Code>,
    pub(super) missing: Vec<String>,
    pub(super) protection: Option<Protection>,
    pub(super) run: Option<Run>,
    pub(super) trigger: Option<Trigger>,
}

impl About {
    pub(super) fn miss(&mut self, what: &str) {
        self.missing.push(what.to_owned());
    }
}

/// Reads what the provider says of the run. `asked` are the claims that the workload's conditions name.
pub(super) fn about(
    kind: ProviderKind,
    claims: &Object<'_>,
    asked: &[&str],
    binding: Binding,
) -> Result<About, Denied> {
    let says = Says { claims };
    let mut about = match kind {
        ProviderKind::Entra | ProviderKind::Oidc | ProviderKind::Workload => About::default(),
        ProviderKind::Github => github(&says, asked)?,
        ProviderKind::Gitlab => gitlab(&says)?,
        ProviderKind::Buildkite => buildkite(&says)?,
        ProviderKind::Circleci => circleci(&says)?,
        ProviderKind::Kubernetes => kubernetes(&says)?,
        ProviderKind::Spiffe | ProviderKind::SpiffeX509 => spiffe(),
    };
    match binding {
        Binding::None => about.miss("the token is bound to no key: whoever saw it could use it"),
        Binding::Proof => about.miss(
            "the provider bound the token to no key, whoever proved it did: whoever else had it before that could have",
        ),
        // Certificates say nothing here.
        Binding::Audience | Binding::Key | Binding::Nonce | Binding::Tls => {}
    }
    Ok(about)
}

/// The claims, read one by one.
struct Says<'a> {
    claims: &'a Object<'a>,
}

impl Says<'_> {
    /// A text, a number in digits or a truth value; none where it is absent, null or empty.
    fn opt(&self, name: &str) -> Result<Option<String>, Denied> {
        let value = match self.claims.get(name) {
            Some(value) => plain(name, value)?,
            None => None,
        };
        Ok(value.filter(|text| !text.is_empty()))
    }
    /// The first of two that is there.
    fn either(&self, first: &str, second: &str) -> Result<Option<String>, Denied> {
        Ok(self.opt(first)?.or(self.opt(second)?))
    }
    /// One without which the run has no name.
    fn need(&self, name: &str) -> Result<String, Denied> {
        self.opt(name)?.ok_or_else(|| malformed(name))
    }
}

fn a_fork() -> Denied {
    Denied::new(
        "token-fork",
        "the run is of a pull request, whose code may be anybody's",
    )
    .with_help("give access to runs of protected branches; if pull requests are meant, say so in a condition on `event_name`")
}

/// GitHub's tokens do not say whether a pull request comes from a fork. A workload whose conditions name the event has
/// decided for itself.
fn refuse_pull_requests(says: &Says<'_>, asked: &[&str]) -> Result<(), Denied> {
    let event = says.opt("event_name")?.unwrap_or_default();
    let reference = says.opt("ref")?.unwrap_or_default();
    let pull_request = event.starts_with("pull_request") || reference.starts_with("refs/pull/");
    if pull_request && !asked.contains(&"event_name") {
        return Err(a_fork());
    }
    Ok(())
}

/// Of GitHub's and GitLab's tokens; neither names all of it.
fn protection(says: &Says<'_>) -> Result<Option<Protection>, Denied> {
    let protection = Protection {
        deployment_tier: says.opt("deployment_tier")?,
        environment: says.opt("environment")?,
        environment_protected: says.opt("environment_protected")?,
        ref_protected: says.opt("ref_protected")?,
        runner_environment: says.opt("runner_environment")?,
    };
    let says_any = protection.parts().next().is_some();
    Ok(says_any.then_some(protection))
}

fn github(says: &Says<'_>, asked: &[&str]) -> Result<About, Denied> {
    refuse_pull_requests(says, asked)?;
    let attempt = says.need("run_attempt")?;
    let mut about = About {
        code: Some(Code {
            commit: says.opt("sha")?,
            reference: says.opt("ref")?,
            repo: Some(says.need("repository_id")?),
            // A reusable workflow is what runs; the one that calls it only chose it.
            workflow: says.either("job_workflow_ref", "workflow_ref")?,
            workflow_commit: says.either("job_workflow_sha", "workflow_sha")?,
        }),
        run: Some(Run {
            attempt: Some(attempt.clone()),
            id: says.need("run_id")?,
            job: says.opt("check_run_id")?,
            provider: "github".to_owned(),
        }),
        trigger: Some(Trigger {
            event: says.opt("event_name")?,
            id: says.opt("actor_id")?,
        }),
        missing: vec![],
        protection: protection(says)?,
    };
    if attempt != "1" {
        about.miss("GitHub names who started the first run, not who ran it again");
    }
    if about.run.as_ref().is_some_and(|run| run.job.is_none()) {
        about.miss("the token does not name the job");
    }
    nobody_on_schedule(
        &mut about,
        "a schedule started the run: the account that GitHub names last changed the schedule",
    );
    Ok(about)
}

/// Whom a provider names beside a scheduled run started nothing.
fn nobody_on_schedule(about: &mut About, missing: &str) {
    if let Some(trigger) = about.trigger.as_mut()
        && trigger.event.as_deref() == Some("schedule")
    {
        trigger.id = None;
        about.miss(missing);
    }
}

/// In a merge request's pipeline `project_id` is where the code is from, `job_project_id` where the job runs.
fn refuse_fork(says: &Says<'_>) -> Result<(), Denied> {
    let runs_in = says.opt("job_project_id")?;
    if runs_in.is_some() && runs_in != says.opt("project_id")? {
        return Err(Denied::new(
            "token-fork",
            "the job runs code of another project than its own: a merge request from a fork",
        )
        .with_help("give access to pipelines of protected branches"));
    }
    Ok(())
}

fn gitlab(says: &Says<'_>) -> Result<About, Denied> {
    refuse_fork(says)?;
    let mut about = About {
        code: Some(Code {
            commit: says.opt("sha")?,
            reference: says.either("ref_path", "ref")?,
            repo: Some(says.need("project_id")?),
            workflow: says.opt("ci_config_ref_uri")?,
            workflow_commit: says.opt("ci_config_sha")?,
        }),
        run: Some(Run {
            attempt: None,
            id: says.need("pipeline_id")?,
            job: Some(says.need("job_id")?),
            provider: "gitlab".to_owned(),
        }),
        trigger: Some(Trigger {
            event: says.opt("pipeline_source")?,
            id: says.opt("user_id")?,
        }),
        missing: vec![],
        protection: protection(says)?,
    };
    nobody_on_schedule(
        &mut about,
        "a schedule started the pipeline: the account that GitLab names owns the schedule",
    );
    Ok(about)
}

fn buildkite(says: &Says<'_>) -> Result<About, Denied> {
    let commit = says.opt("build_commit")?.filter(|commit| is_commit(commit));
    let mut about = About {
        run: Some(Run {
            attempt: None,
            id: match says.opt("build_id")? {
                Some(id) => id,
                None => says.need("build_number")?,
            },
            job: Some(says.need("job_id")?),
            provider: "buildkite".to_owned(),
        }),
        trigger: says.opt("build_source")?.map(|event| Trigger {
            event: Some(event),
            id: None,
        }),
        ..About::default()
    };
    about.miss("Buildkite names nobody who started the build");
    if commit.is_none() {
        about.miss("the token does not name the commit");
    }
    about.code = Some(Code {
        commit,
        reference: says.opt("build_branch")?,
        repo: says.either("pipeline_id", "pipeline_slug")?,
        ..Code::default()
    });
    Ok(about)
}

/// A full id of a commit; Buildkite writes `HEAD` before it knows one.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn circleci(says: &Says<'_>) -> Result<About, Denied> {
    match says.claims.get("oidc.circleci.com/ssh-rerun") {
        None | Some(Json::Bool(false)) => {}
        Some(_) => {
            return Err(Denied::new(
                "token-ssh",
                "the job was started again with SSH: a person has a shell in it",
            )
            .with_help(
                "run the job without SSH; who wants a shell asks for a grant of their own",
            ));
        }
    }
    let sub = says.claims.get("sub").and_then(Json::text);
    let mut about = About {
        code: Some(Code {
            reference: says.opt("oidc.circleci.com/vcs-ref")?,
            repo: Some(says.need("oidc.circleci.com/project-id")?),
            ..Code::default()
        }),
        run: Some(Run {
            attempt: None,
            id: says.need("oidc.circleci.com/workflow-id")?,
            job: Some(says.need("oidc.circleci.com/job-id")?),
            provider: "circleci".to_owned(),
        }),
        trigger: sub.and_then(circleci_user).map(|id| Trigger {
            event: None,
            id: Some(id),
        }),
        missing: vec![],
        protection: None,
    };
    about.miss("CircleCI does not name the commit");
    Ok(about)
}

/// `org/ID/project/ID/user/ID`, with more after it in newer tokens.
fn circleci_user(sub: &str) -> Option<String> {
    let mut words = sub.split('/');
    let mut next = |name: &str| (words.next() == Some(name)).then(|| words.next()).flatten();
    next("org").and(next("project"))?;
    next("user").filter(|id| !id.is_empty()).map(str::to_owned)
}

/// A token with which the cluster's own API can be used is a credential, not a proof of identity.
pub(super) fn check_cluster(provider: &Provider, audiences: &[&str]) -> Result<(), Denied> {
    // An API server that is told no audiences of its own takes its issuer for one.
    let live =
        |audience: &&str| audience.contains("kubernetes.default") || **audience == provider.issuer;
    if audiences.iter().any(live) {
        return Err(Denied::new(
            "token-cluster",
            "the token opens the cluster's own API: it is a live credential and must not leave the pod",
        )
        .with_help("ask for a token with ascribe's audience (TokenRequest, or a projected volume)"));
    }
    Ok(())
}

fn kubernetes(says: &Says<'_>) -> Result<About, Denied> {
    let bound = says.claims.get("kubernetes.io").and_then(Json::object);
    if bound.is_some_and(|bound| bound.contains_key("warnafter")) {
        return Err(Denied::new(
            "token-life",
            "the cluster has extended the token's life (`warnafter`)",
        )
        .with_help("ask for a token of at most an hour (TokenRequest, or a projected volume)"));
    }
    let mut about = About::default();
    let pod = bound
        .and_then(|bound| bound.get("pod"))
        .and_then(Json::object);
    match pod {
        Some(claims) => {
            about.run = Some(Run {
                attempt: None,
                id: Says { claims }.need("uid")?,
                job: None,
                provider: "kubernetes".to_owned(),
            });
        }
        None => about.miss("the token is bound to no pod"),
    }
    about.miss("Kubernetes names neither the code that runs nor who started it");
    Ok(about)
}

pub(super) fn spiffe() -> About {
    let mut about = About::default();
    about.miss("a SPIFFE ID names a service, not its run, its code or who started it");
    about
}

/// SPIFFE ID, 2: a trust domain and a path of plain segments.
pub(super) fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let plain = |text: &str, upper: bool| {
        let known = |b: u8| {
            matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
                || (upper && b.is_ascii_uppercase())
        };
        !text.is_empty() && text.bytes().all(known)
    };
    domain.len() <= 255
        && plain(domain, false)
        && path
            .split('/')
            .all(|segment| plain(segment, true) && segment != "." && segment != "..")
}

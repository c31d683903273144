//! Databases: what a target's rules and a grant allow of statements.

use super::{Denied, JOBS, State};
use crate::database::{
    CONNECT, EMPTY, Postgres, Reconciliation, SET, SqlScope, UNPARSED, UNREAD, object_parts,
};
use crate::entry::{Intent, Outcome, SessionOpen};
use crate::id::{PersonId, SessionId};
use crate::statement::{Request, Role, Target};
use crate::text::is_unsafe;

/// The target is connected to.
const CONNECTION: &str = "pg.connect";
/// A statement is prepared or bound, and not run with that.
const PREPARE: &str = "pg.prepare";

/// What is done on a database: it is connected to, a simple query's statement, a statement readied for what
/// may come, a prepared statement's execution, a function called by its number, a statement under way that is
/// cancelled, a message too large to be held that is taken in.
pub(super) const KINDS: [&str; 7] = [
    CONNECTION,
    "pg.query",
    PREPARE,
    "pg.execute",
    "pg.call",
    "pg.cancel",
    "pg.message",
];

/// Most certificates of a target, and the length of each.
const MAX_TRUST: usize = 16;
const CERTIFICATE: core::ops::RangeInclusive<usize> = 64..=8192;
/// Most databases, classes or flags of a list, and letters of one.
const MAX_WORDS: usize = 64;
const MAX_WORD: usize = 64;
/// Most objects of a grant or an intent, and bytes of one.
const MAX_OBJECTS: usize = 256;
const MAX_OBJECT: usize = 160;
/// Most statements of a script.
const MAX_SCRIPT: usize = 512;
/// Longest command tag, in bytes.
const MAX_TAG: usize = 64;
/// Most targets that are compared at once, and files of a database's log.
const MAX_COMPARED: usize = 32;
const MAX_FILES: usize = 512;

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn are_words(list: &[String]) -> bool {
    list.len() <= MAX_WORDS && list.iter().all(|word| is_word(word))
}

fn are_objects(list: &[String]) -> bool {
    let fits =
        |text: &String| (1..=MAX_OBJECT).contains(&text.len()) && !text.chars().any(is_unsafe);
    list.len() <= MAX_OBJECTS && list.iter().all(fits)
}

/// The part of a target's rules that only a database has.
pub(super) fn check_postgres(target: &Target, postgres: &Postgres) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("target", text));
    let trusted = postgres.trust.len() <= MAX_TRUST
        && postgres
            .trust
            .iter()
            .all(|certificate| CERTIFICATE.contains(&certificate.0.len()));
    if !target.host_keys.is_empty() {
        return refuse("a database has certificates, not SSH host keys");
    }
    if !trusted || (postgres.trust.is_empty() && !target.loopback) {
        return refuse(
            "a database has one to sixteen certificates that it is known by; only on the gateway's own machine may it have none",
        );
    }
    if !are_words(&postgres.allow) {
        return refuse("what a database allows is a list of flags, such as `set-role`");
    }
    let named = |name: &String| (1..=63).contains(&name.len()) && !name.chars().any(is_unsafe);
    if postgres.databases.len() > MAX_WORDS || !postgres.databases.iter().all(named) {
        return refuse("a database's name has 1 to 63 bytes");
    }
    Ok(())
}

/// Does what is asked for fit the kind of target, and is it within bounds?
pub(super) fn check_scope(target: &Target, request: &Request) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("sql", text));
    if target.postgres.is_some() && !request.forwards.is_empty() {
        return refuse("nothing is forwarded through a database");
    }
    let Some(scope) = &request.sql else {
        return Ok(());
    };
    if target.postgres.is_none() {
        return refuse("the target is no database");
    }
    let named = scope.objects.iter().all(|o| object_parts(o).is_some());
    if !are_words(&scope.classes) || !are_objects(&scope.objects) || !named {
        return refuse("classes are words such as `select`; objects are SCHEMA.TABLE or SCHEMA.*");
    }
    if scope.script.len() > MAX_SCRIPT {
        return refuse("a script has at most 512 statements");
    }
    let Some(job) = &scope.job else {
        return Ok(());
    };
    if request.beneficiary.is_none() {
        return refuse("a job has a workload that runs it");
    }
    if scope.script.is_empty() && scope.classes.is_empty() {
        return refuse("a job has a script, or it is a command with the classes of its statements");
    }
    if !super::rules::is_name(&job.name) || !is_schedule(&job.schedule) {
        return refuse("a job has a name as targets have one, and says in one line when it runs");
    }
    Ok(())
}

fn is_schedule(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(is_unsafe)
}

impl State {
    /// Can the one whose yes a job needs give it?
    pub(super) fn check_job_owner(
        &self,
        by: PersonId,
        target: &Target,
        scope: Option<&SqlScope>,
    ) -> Result<(), Denied> {
        if scope.is_none_or(|scope| scope.job.is_none()) {
            return Ok(());
        }
        let owner = target.system_owner;
        if owner == by {
            return Err(Denied::new(
                "job-owner",
                "the target's system owner has to approve a job, and nobody approves what they asked for",
            )
            .with_help("have the workload be somebody else's to answer for: `ascribe workload add`"));
        }
        if !self.person(owner)?.may(Role::Approver) {
            return Err(Denied::new(
                "job-owner",
                format!(
                    "the target's system owner `{owner}` has to approve a job, and is no approver"
                ),
            )
            .with_help(
                "administrators give them the role `approver`, or the target another owner",
            ));
        }
        Ok(())
    }

    /// Does whoever opens a session of a job have what was approved? Of a script each statement is compared besides. Of
    /// a command nothing else is known, so it must be said, and signed.
    pub(super) fn check_definition(&self, open: &SessionOpen) -> Result<(), Denied> {
        let opener = open.opening.map(|id| self.opener(id)).transpose()?;
        let stated = opener.and_then(|opener| opener.connect.definition);
        let scope = self.grant(open.grant)?.grant.sql.as_ref();
        let job = scope.and_then(|scope| Some((scope, scope.job.as_ref()?)));
        let Some((scope, job)) = job else {
            return match stated {
                Some(_) => Err(Denied::new("definition", "the grant is for no job")),
                None => Ok(()),
            };
        };
        let name = &job.name;
        let why = match stated {
            Some(stated) if stated == job.definition => return Ok(()),
            None if !scope.script.is_empty() => return Ok(()),
            Some(_) => format!("what the job `{name}` runs has changed since it was approved"),
            None => {
                format!("the grant is for the command of the job `{name}`, and none was stated")
            }
        };
        let help = format!(
            "run what was approved: ascribe job run {name}; or have it approved anew: ascribe job add"
        );
        Err(Denied::new("definition", why).with_help(help))
    }

    /// May this statement be executed in its session?
    pub(super) fn check_statement(&self, intent: &Intent) -> Result<(), Denied> {
        let session = self.session(intent.session)?;
        let Some(postgres) = &self.target(&session.open.target)?.target.postgres else {
            return Err(Denied::new("kind", "the target is no database"));
        };
        let Some(sql) = &intent.sql else {
            // A cancel stops what was recorded before; values by themselves run nothing.
            return match intent.kind.as_str() {
                "pg.cancel" | "pg.message" => Ok(()),
                _ => Err(Denied::new("sql", "a statement says what kind it is of")),
            };
        };
        if !are_words(&sql.classes) || !are_words(&sql.flags) || !are_objects(&sql.objects) {
            return Err(Denied::new("sql", "the statement's classes are malformed"));
        }
        if sql.port.is_some() && intent.kind != CONNECTION {
            return Err(Denied::new("sql", "only a connection comes from a port"));
        }
        if let Some(flag) = sql.flags.iter().find(|f| !postgres.allow.contains(f)) {
            let what = if flag == UNREAD {
                "the statement cannot be read, so nobody knows what it does".to_owned()
            } else {
                format!("the target does not allow `{flag}`")
            };
            return Err(Denied::new("flag", what).with_help(format!(
                "administrators can allow it: register the target again with `--allow {flag}`"
            )));
        }
        let grant = &self.grant(session.open.grant)?.grant;
        match &grant.sql {
            Some(scope) if intent.kind == CONNECTION => check_connect(scope, &sql.classes),
            Some(scope) => self.check_within(scope, intent),
            None => Ok(()),
        }
    }

    fn check_within(&self, scope: &SqlScope, intent: &Intent) -> Result<(), Denied> {
        let Some(sql) = &intent.sql else {
            return Ok(());
        };
        let refuse = |text: String| Err(Denied::new("outside-grant", text));
        if sql.classes.iter().all(|class| class == EMPTY) && !sql.classes.is_empty() {
            return Ok(());
        }
        let understood = !sql.classes.is_empty() && !sql.classes.iter().any(|c| c == UNPARSED);
        if scope.reads() && !understood {
            return refuse(
                "the grant bounds what statements do, and this one cannot be read".into(),
            );
        }
        let other = |class: &&String| !scope.classes.contains(class);
        if let Some(class) = sql.classes.iter().find(other)
            && !scope.classes.is_empty()
        {
            return refuse(format!(
                "the grant is not for statements of class `{class}`"
            ));
        }
        if let Some(object) = sql.objects.iter().find(|object| !scope.holds(object))
            && !scope.objects.is_empty()
        {
            let object = crate::text::clean(object, 120);
            return refuse(format!("the grant is not for `{object}`"));
        }
        if scope.script.is_empty() {
            return Ok(());
        }
        let Some(step) = sql.step else {
            return refuse("the statement is not in the approved script".into());
        };
        if intent.command.is_none() && self.version >= JOBS {
            return refuse("a statement of the approved script has its text".into());
        }
        let approved = scope.script.get(step.number as usize);
        if approved != Some(&step.sha256) {
            return refuse("the statement is not the one of the approved script".into());
        }
        if step.number < self.session(intent.session)?.next_step {
            return refuse("the approved script is past this statement".into());
        }
        Ok(())
    }

    /// The approved script goes on behind this statement.
    pub(super) fn take_step(&mut self, intent: &Intent) {
        let step = intent.sql.as_ref().and_then(|sql| sql.step);
        let step = step.filter(|_| intent.kind != PREPARE);
        if let (Some(step), Some(session)) = (step, self.sessions.get_mut(&intent.session)) {
            session.next_step = step.number.saturating_add(1);
        }
    }

    /// Nothing follows from it, but its counts stand: who looked, at what, and what was found.
    pub(super) fn check_reconciliation(
        &self,
        by: PersonId,
        compared: &Reconciliation,
    ) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("reconciliation", text));
        let person = self.person(by)?;
        if !person.may(Role::Auditor) && !person.may(Role::Admin) {
            return Err(Denied::new(
                "role",
                "a reconciliation is recorded by an auditor or an admin",
            )
            .with_help("`--dry-run` compares and records nothing"));
        }
        if !(1..=MAX_COMPARED).contains(&compared.targets.len())
            || !compared.targets.is_sorted_by(|one, next| one < next)
        {
            return refuse("one to 32 targets are compared, in order, each once");
        }
        for name in &compared.targets {
            if self.target(name)?.target.postgres.is_none() {
                return refuse("only databases have logs that are compared");
            }
        }
        if !(1..=MAX_FILES).contains(&compared.files.len()) {
            return refuse("one to 512 files of a log are compared");
        }
        if compared.until < compared.from {
            return refuse("the log ends before it begins");
        }
        Ok(())
    }

    /// Is the session one with a database?
    pub(super) fn is_database(&self, session: SessionId) -> Result<bool, Denied> {
        let target = &self.session(session)?.open.target;
        Ok(self.target(target)?.target.postgres.is_some())
    }
}

/// Connecting by itself runs nothing. What it sets counts as if a statement set it.
fn check_connect(scope: &SqlScope, classes: &[String]) -> Result<(), Denied> {
    let sets = classes.iter().any(|class| class != CONNECT);
    let within = scope.script.is_empty()
        && (scope.classes.is_empty() || scope.classes.iter().any(|class| class == SET));
    if within || !sets {
        return Ok(());
    }
    let text = "the grant is for its statements, and the connection sets parameters that may change what they mean";
    Err(Denied::new("outside-grant", text)
        .with_help("connect without `options`, PGOPTIONS and other parameters"))
}

/// A session came by a door that does not lead to its target.
pub(super) fn wrong_door(target: &Target) -> Denied {
    let name = &target.name;
    if target.postgres.is_some() {
        Denied::new("door", format!("`{name}` is a database"))
            .with_help(format!("connect to it with: ascribe psql ROLE@{name}"))
    } else {
        Denied::new("door", format!("`{name}` is no database"))
            .with_help(format!("log in to it with: ssh ACCOUNT@{name}"))
    }
}

/// What a database is said to have answered is within bounds.
pub(super) fn check_answer(outcome: &Outcome) -> Result<(), Denied> {
    let Some(sql) = &outcome.sql else {
        return Ok(());
    };
    let code = |text: &String| text.len() == 5 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let tag = |text: &String| text.len() <= MAX_TAG && !text.chars().any(is_unsafe);
    if sql.sqlstate.as_ref().is_none_or(code) && sql.tag.as_ref().is_none_or(tag) {
        Ok(())
    } else {
        Err(Denied::new("sql", "the database's answer is malformed"))
    }
}

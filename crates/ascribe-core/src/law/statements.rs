//! Signed statements: whose each one is, and which rule takes it. The rules are by subject: what people
//! ask for in `asks`, yes and no in `answers`, sessions in `sessions`, changes under quorum in `proposals`,
//! people and keys in `people`, and whatever else there is in a module of its name.

use super::identities::signer;
use super::sessions::is_fresh;
use super::{Asked, Denied, JUDGED_AGO_MS, Judge, Place, SIGNER_SKEW_MS, Said, State};
use crate::id::StatementId;
use crate::statement::{Say, Signed, SshKey, Statement};
use crate::time::Timestamp;

/// A statement with whoever signed it.
struct Author {
    key: SshKey,
    fingerprint: String,
    /// The delegation whose agent signed, where it was not the person.
    agent: Option<StatementId>,
}

impl State {
    pub(super) fn take_statement(
        &mut self,
        judge: &dyn Judge,
        at: Timestamp,
        signed: &Signed,
        said: &Said<'_>,
        place: Place,
    ) -> Result<(), Denied> {
        let Some(statement) = &said.statement else {
            return Err(Denied::new("internal", "the statement was not read"));
        };
        let Author {
            key,
            fingerprint,
            agent,
        } = self.check_signed_at(judge, at, (signed, statement), place.index)?;
        let (by, id) = (statement.by, statement.id);
        let own = matches!(
            &statement.say,
            Say::Login(_) | Say::Logout(_) | Say::Connect(_) | Say::Read(_)
        );
        let vouches = (!own).then(|| fingerprint.clone());
        match &statement.say {
            Say::Request(request) => {
                self.check_request(by, at, request)?;
                self.put_ask((id, by, &key), at, Asked::Request(request.clone()), place);
            }
            Say::Extension(extension) => {
                self.check_extension(by, at, extension)?;
                self.put_ask(
                    (id, by, &key),
                    at,
                    Asked::Extension(extension.clone()),
                    place,
                );
            }
            Say::BreakGlass(emergency) => {
                self.check_break_glass(by, at, emergency)?;
                self.check_gives(&emergency.target, &key)?;
                self.put_ask(
                    (id, by, &key),
                    at,
                    Asked::Emergency(emergency.clone()),
                    place,
                );
            }
            Say::Approval(answer) => self.take_approval((by, &key), at, answer, place)?,
            Say::Denial(answer) => self.take_denial(by, answer)?,
            Say::Cancellation(answer) => self.take_cancellation(by, answer)?,
            Say::Revocation(revocation) => self.take_revocation(by, at, revocation)?,
            Say::Review(review) => self.take_review(by, at, review)?,
            Say::Reconciliation(compared) => self.check_reconciliation(by, compared)?,
            Say::Use(chosen) => self.take_choice(by, chosen.grant)?,
            Say::KeyRevoke(revoked) => self.take_key_revoke(by, revoked)?,
            Say::IdentityUnlink(link) => self.take_unlink(by, at, link)?,
            Say::Login(login) => {
                self.check_keys_age(at, &login.provider)?;
                self.check_login_token(judge, by, &key, login, said.token)?;
                self.take_login(id, by, at, (login, key, fingerprint), place)?;
            }
            Say::Logout(logout) => self.take_logout(by, at, logout)?,
            Say::Termination(termination) => self.take_termination(by, at, termination)?,
            Say::Connect(connect) => {
                let opener = self.check_connect(by, at, connect, fingerprint, place)?;
                self.openers.retain(|_, old| is_fresh(at, old.at));
                self.openers.insert(id, opener);
            }
            Say::Read(read) => {
                self.check_read_key(by, &key, read)?;
                self.take_read(by, read)?;
            }
            Say::Delegation(_) => {
                self.take_delegation(statement, at, &fingerprint, agent, place)?;
            }
            Say::Acceptance(acceptance) => self.take_acceptance(acceptance, at, agent, place)?,
            Say::DelegationRevoke(revoke) => self.take_delegation_revoke(by, at, revoke, agent)?,
            Say::DirectoryFile(file) => self.take_directory_file((by, &key), at, file, place)?,
            Say::KeysSeen(seen) => self.take_keys_seen((by, &key), at, seen, place)?,
            Say::TargetSet(_)
            | Say::PersonAdd(_)
            | Say::KeyAdd(_)
            | Say::Offboard(_)
            | Say::CaSet(_)
            | Say::ProviderSet(_)
            | Say::IdentityLink(_)
            | Say::WorkloadSet(_)
            | Say::DirectorySet(_)
            | Say::WitnessSet(_) => {
                self.check_carries_law(&key)?;
                self.take_proposal(statement, &key, at, place)?;
            }
        }
        if let Some(key) = vouches {
            self.take_vouched(&key);
        }
        self.statements.insert(id);
        Ok(())
    }

    /// Is this a statement for this log, now, signed by an active key of the person it names, or of an
    /// agent of theirs that may say this?
    ///
    /// # Errors
    /// When it is not.
    pub fn check_signed(
        &self,
        judge: &dyn Judge,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Statement, Denied> {
        let statement = signed
            .statement()
            .map_err(|e| Denied::new("malformed", format!("the statement is {e}")))?;
        self.check_signed_at(judge, at, (signed, &statement), self.size)?;
        Ok(statement)
    }

    /// Is this a statement for this log, signed now, and not taken before? Whose it is, is not looked at.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_fresh(&self, at: Timestamp, statement: &Statement) -> Result<(), Denied> {
        let at = self.last_at.map_or(at, |last| last.max(at));
        // It was judged a little ago.
        let judged = statement.at.clamp(at.plus_millis(-JUDGED_AGO_MS), at);
        self.check_new(judged, statement, self.size)
    }

    fn check_new(&self, at: Timestamp, statement: &Statement, index: u64) -> Result<(), Denied> {
        if statement.v != 1 {
            return Err(Denied::new("version", "unknown statement version"));
        }
        if statement.log != self.origin {
            return Err(Denied::new("log", "the statement is for another ledger"));
        }
        if at.since(statement.at).abs() > SIGNER_SKEW_MS {
            return Err(Denied::new(
                "clock",
                "the signer's clock is more than 5 minutes off the ledger's",
            )
            .with_help("set the clock, then sign again"));
        }
        if statement.seen.size > index {
            return Err(Denied::new(
                "future",
                "the signer has seen more of this log than there is",
            ));
        }
        if self.statements.contains(&statement.id) {
            return Err(Denied::new("replay", "this statement was taken before"));
        }
        Ok(())
    }

    /// What `check_signed` checks, of a statement that was read already. Says who signed it.
    fn check_signed_at(
        &self,
        judge: &dyn Judge,
        at: Timestamp,
        (signed, statement): (&Signed, &Statement),
        index: u64,
    ) -> Result<Author, Denied> {
        self.check_new(at, statement, index)?;
        let key = signer(judge, signed, &statement.say)?;
        self.check_actor(statement.by)?;
        let fingerprint = key.fingerprint();
        let of_agent = self.agents.contains_key(&fingerprint);
        let agent = match &statement.say {
            // A login introduces its key; whose it is, is looked at there.
            Say::Login(_) => None,
            Say::Acceptance(_) => {
                Some(self.check_agent_signature(at, statement, (&key, &fingerprint))?)
            }
            _ if of_agent => {
                Some(self.check_agent_signature(at, statement, (&key, &fingerprint))?)
            }
            _ => {
                self.check_key_of(statement.by, at, (&key, &fingerprint))?;
                self.check_bearer_says(&fingerprint, &statement.say)?;
                None
            }
        };
        self.check_present(statement.by)?;
        self.check_may_say(statement.by, &statement.say)?;
        Ok(Author {
            key,
            fingerprint,
            agent,
        })
    }
}

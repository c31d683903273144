//! Changes under the administrators' quorum: which there are, and what each does when it takes effect.

use super::identities::check_levels;
use super::{AskStatus, Asked, Denied, OWNERS_AND_FORKS, Place, State, TargetState, rules};
use crate::statement::{PersonAdd, Role, Say, SshKey, Statement, Target};
use crate::time::Timestamp;

impl State {
    pub(super) fn take_proposal(
        &mut self,
        statement: &Statement,
        key: &SshKey,
        at: Timestamp,
        place: Place,
    ) -> Result<(), Denied> {
        self.need(statement.by, Role::Admin)?;
        self.check_change(&statement.say)?;
        // One proposal at a time for each new person: there is one name to approve.
        let waits = |add: &PersonAdd| {
            self.open_asks().any(|(_, ask)| {
                matches!(&ask.asked, Asked::Proposal(Say::PersonAdd(other)) if other.person == add.person)
            })
        };
        if matches!(&statement.say, Say::PersonAdd(add) if waits(add)) {
            return Err(Denied::new(
                "duplicate",
                "this person's enrolment waits for approval",
            ));
        }
        let asked = Asked::Proposal(statement.say.clone());
        self.put_ask((statement.id, statement.by, key), at, asked, place);
        if self
            .asks
            .get(&statement.id)
            .is_some_and(|ask| self.is_carried(ask))
            && !self.waits_for_witnesses(statement.id, &statement.say, place)
        {
            self.take_change(&statement.say, at, place);
            self.settle(statement.id, AskStatus::Granted);
        }
        Ok(())
    }

    pub(super) fn check_change(&self, say: &Say) -> Result<(), Denied> {
        self.check_may_wait(say)?;
        match say {
            Say::TargetSet(target) => self.check_target(target),
            Say::PersonAdd(person) => self.check_person(person),
            Say::KeyAdd(key) => {
                self.person(key.person)?;
                self.check_persons_key(&key.key)
            }
            Say::Offboard(leaver) => self.check_offboard(leaver),
            Say::CaSet(authority) => self.check_authority(authority),
            Say::ProviderSet(provider) => self.check_provider_set(provider),
            Say::IdentityLink(link) => self.check_identity(link),
            Say::WorkloadSet(workload) => self.check_workload(workload),
            Say::WitnessSet(set) => self.check_witness_set(set),
            Say::DirectorySet(directory) => self.check_directory(directory),
            _ => Err(Denied::new("internal", "not a proposal")),
        }
    }

    pub(super) fn take_change(&mut self, say: &Say, at: Timestamp, place: Place) {
        match say {
            Say::TargetSet(target) => {
                let state = TargetState {
                    target: target.clone(),
                    place,
                };
                self.targets.insert(target.name.clone(), state);
            }
            Say::PersonAdd(person) => self.take_person(person, place),
            Say::KeyAdd(key) => {
                let fingerprint = key.key.fingerprint();
                self.keys.insert(fingerprint.clone(), key.person);
                if let Some(person) = self.people.get_mut(&key.person) {
                    person.keys.insert(fingerprint, key.key.clone());
                }
            }
            Say::Offboard(leaver) => {
                if let Some(person) = self.people.get_mut(&leaver.person) {
                    person.offboarded = Some(at);
                }
            }
            Say::CaSet(authority) => self.take_authority(authority, place),
            Say::ProviderSet(provider) => self.take_provider(provider, place),
            Say::IdentityLink(link) => self.take_identity(link, place),
            Say::WorkloadSet(workload) => self.take_workload(workload, at, place),
            Say::WitnessSet(set) => self.take_witness_set(set),
            Say::DirectorySet(directory) => self.take_directory(directory, place),
            _ => {}
        }
        self.hear_directories(at);
        self.end_logins(at);
    }

    /// Has whoever answers for the target left? Entries of version 1 did not ask.
    fn lacks_owner(&self, target: &Target) -> Result<bool, Denied> {
        let owner = self.person(target.system_owner)?;
        Ok(self.version >= OWNERS_AND_FORKS && owner.is_away())
    }

    /// Nobody gets access anew to what nobody answers for.
    pub(super) fn check_system_owner(&self, target: &Target) -> Result<(), Denied> {
        if !self.lacks_owner(target)? {
            return Ok(());
        }
        let Target {
            name, system_owner, ..
        } = target;
        Err(Denied::new(
            "system-owner",
            format!(
                "target `{name}` has no system owner: `{system_owner}` has left or is suspended"
            ),
        )
        .with_help(format!(
            "an administrator names another: `ascribe target add {name} ... --owner PERSON`"
        )))
    }

    pub(super) fn check_target(&self, target: &Target) -> Result<(), Denied> {
        rules::check_target(target)?;
        check_levels(target)?;
        if self.lacks_owner(target)? {
            return Err(Denied::new(
                "owner",
                "the target's system owner has left or is suspended; name somebody who is there",
            )
            .with_help(format!(
                "`ascribe target add {} ... --owner PERSON`",
                target.name
            )));
        }
        for person in target.required_approvers.iter().chain(&target.break_glass) {
            self.person(*person)?;
        }
        self.check_named_groups(target)
    }
}

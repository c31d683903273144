//! What targets and logins make of groups and managers that directories name.

use std::collections::BTreeSet;

use super::directories::{MAX_GROUP, MAX_NAMED};
use super::{Ask, Denied, Manager, Place, State};
use crate::directory::DirectoryGroup;
use crate::id::PersonId;
use crate::identity::Login;
use crate::statement::{Role, Target};

impl State {
    /// The entry that says that an approver is in one of the groups that the target names; none where it
    /// names none.
    pub(super) fn check_approver_group(
        &self,
        by: PersonId,
        ask: &Ask,
    ) -> Result<Option<Place>, Denied> {
        let Some(target) = self.target_of(ask)? else {
            return Ok(None);
        };
        let groups = &target.approver_groups;
        let own = self.people.get(&by).map_or(&[][..], |own| &own.groups);
        let found = own.iter().filter(|own| groups.contains(&own.group));
        let found = found.map(|own| own.place).max_by_key(|place| place.index);
        if groups.is_empty() || found.is_some() {
            return Ok(found);
        }
        let names: Vec<String> = groups
            .iter()
            .map(|group| format!("`{}` of `{}`", group.group, group.directory))
            .collect();
        Err(Denied::new(
            "group",
            format!(
                "requests for this target are approved by members of {}, and no directory says that you are one",
                names.join(" or ")
            ),
        )
        .with_help("where groups come from your provider's tokens, log in first: `ascribe login`"))
    }

    /// The entries that say that somebody is in a group that gives this role, which no administrator gave them by name.
    pub(super) fn role_words(&self, by: PersonId, role: Role) -> Vec<Place> {
        let Some(own) = self.people.get(&by).filter(|p| !p.roles.contains(&role)) else {
            return Vec::new();
        };
        let gives = |group: &DirectoryGroup| {
            let known = self.directories.get(&group.directory);
            let mut rules = known.into_iter().flat_map(|known| &known.directory.roles);
            rules.any(|rule| rule.group == group.group && rule.role == role)
        };
        let places = own.groups.iter().filter(|own| gives(&own.group));
        let mut places: Vec<Place> = places.map(|own| own.place).collect();
        places.sort_by_key(|place| place.index);
        places.dedup();
        places
    }

    /// The manager of somebody, as directories have it.
    pub fn manager_of(&self, id: PersonId) -> Option<&Manager> {
        self.people.get(&id)?.manager.as_ref()
    }

    /// Where a manager has to approve there is one, and it is somebody else.
    pub(super) fn check_manager(&self, by: PersonId, target: &Target) -> Result<(), Denied> {
        if !target.manager_approves {
            return Ok(());
        }
        let refuse = |text| {
            Err(Denied::new("manager", text)
                .with_help("whoever runs the directory enters the manager there"))
        };
        match self.manager_of(by) {
            None if self.has_unknown_manager(by) => Err(Denied::new(
                "manager",
                "your manager approves here, and whom the directory calls that is linked to nobody",
            )
            .with_help("an admin links them: `ascribe identity link`")),
            None => refuse("your manager approves here, and no directory says who that is"),
            Some(manager) if manager.person == by => {
                refuse("your manager approves here, and the directory says that you are your own")
            }
            Some(_) => Ok(()),
        }
    }

    /// Has the manager of whoever asked to say yes, while no directory says who that is?
    pub fn lacks_manager(&self, ask: &Ask) -> bool {
        let target = self.target_of(ask).ok().flatten();
        target.is_some_and(|target| target.manager_approves) && self.manager_of(ask.by).is_none()
    }

    /// The entry that says that somebody approves as the manager of whoever asked, where the target wants that.
    pub(super) fn as_manager(&self, by: PersonId, ask: &Ask) -> Result<Option<Place>, Denied> {
        let target = self.target_of(ask)?;
        let manager = self.manager_of(ask.by);
        let manager = manager.filter(|manager| manager.person == by);
        let wanted = target.is_some_and(|target| target.manager_approves);
        Ok(manager.filter(|_| wanted).map(|manager| manager.place))
    }

    /// A target names groups that could have members who may approve.
    pub(super) fn check_named_groups(&self, target: &Target) -> Result<(), Denied> {
        let groups = &target.approver_groups;
        let distinct: BTreeSet<&DirectoryGroup> = groups.iter().collect();
        if groups.len() > MAX_NAMED || distinct.len() < groups.len() {
            return Err(Denied::new(
                "target",
                "a target's approvers are of 16 different groups at most",
            ));
        }
        for group in groups {
            let known = self.directory(&group.directory)?;
            if known.directory.withdrawn || !known.gives(&group.group) {
                return Err(Denied::new(
                    "group",
                    format!(
                        "no rule of directory `{}` names the group `{}`",
                        crate::text::clean(&group.directory, 64),
                        crate::text::clean(&group.group, MAX_GROUP)
                    ),
                )
                .with_help(
                    "name it there first: `ascribe directory add ... --role GROUP=approver`",
                ));
            }
        }
        Ok(())
    }

    /// A login states groups that rules of directories at its provider look for, and no others.
    pub(super) fn check_groups(&self, login: &Login) -> Result<(), Denied> {
        let groups = &login.claims.groups;
        let wanted = self.wanted_groups(&login.provider);
        let known = |group: &(&str, &str)| wanted.contains(group);
        let pairs: Vec<(&str, &str)> = groups
            .iter()
            .map(|group| (group.claim.as_str(), group.value.as_str()))
            .collect();
        if pairs.is_sorted_by(|one, next| one < next) && pairs.iter().all(known) {
            return Ok(());
        }
        Err(Denied::new(
            "groups",
            "a login states groups that a directory's rules name, sorted",
        )
        .with_help("the rules changed just now: log in again"))
    }

    /// A login states managers by claims that rules of directories at its provider name, and by no others.
    pub(super) fn check_stated_managers(&self, login: &Login) -> Result<(), Denied> {
        let stated = &login.claims.managers;
        let wanted = self.wanted_managers(&login.provider);
        if stated.is_sorted_by(|one, next| one.claim < next.claim)
            && stated
                .iter()
                .all(|manager| wanted.contains(manager.claim.as_str()))
        {
            return Ok(());
        }
        Err(Denied::new(
            "managers",
            "a login states managers by claims that a directory's rules name, sorted",
        )
        .with_help("the rules changed just now: log in again"))
    }

    /// The claims by which a login at this provider looks for the person's manager.
    pub fn wanted_managers(&self, provider: &str) -> BTreeSet<&str> {
        let all = self.directories.values().map(|known| &known.directory);
        let live = all.filter(|d| d.provider == provider && !d.withdrawn);
        live.filter_map(|d| d.manager_claim.as_deref()).collect()
    }

    /// The groups that a login at this provider looks for in its token, with the claim that lists them.
    pub fn wanted_groups(&self, provider: &str) -> BTreeSet<(&str, &str)> {
        let all = self.directories.values().map(|known| &known.directory);
        let live = all.filter(|d| d.provider == provider && !d.withdrawn);
        live.filter_map(|d| Some((d.claim.as_deref()?, &d.roles)))
            .flat_map(|(claim, roles)| roles.iter().map(move |rule| (claim, rule.group.as_str())))
            .collect()
    }
}

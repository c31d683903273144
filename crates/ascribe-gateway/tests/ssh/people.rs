//! Who asks and who approves: statements, signed as people sign them.

use std::time::Duration;

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, entry_hash};
use ascribe_core::id::{EntryHash, EntryId, GrantId, PersonId, Root, StatementId};
use ascribe_core::law::SERVER;
use ascribe_core::record::{Proposal, Receipt, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{
    Answer, Authority, BreakGlass, Forward, PersonAdd, PersonKey, Request, Revocation, Role, Say,
    Seen, Signed, SshKey, Statement, Target, Ticket, Uses,
};
use ascribe_ledger::{Ledger, Rng as _, SystemRng};
use ascribe_tlog::Hash;
use russh::keys::{HashAlg, PrivateKey};

use super::world::public;

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRng.fill(&mut out).unwrap();
    out
}

pub(super) struct People {
    operator: PrivateKey,
    admin: PrivateKey,
}

/// A request that was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: StatementId,
    entry: EntryHash,
}

pub(super) const OPERATOR: PersonId = PersonId::new([1; 16]);
pub(super) const ADMIN: PersonId = PersonId::new([2; 16]);

fn person(id: PersonId, key: &PrivateKey, name: &str, roles: Vec<Role>) -> (PersonAdd, Opening) {
    let opening = Opening::new("name", random(), name.as_bytes().to_vec());
    let add = PersonAdd {
        person: id,
        name: opening.commitment(),
        keys: vec![public(key)],
        roles,
    };
    (add, opening)
}

impl People {
    pub(super) fn new(operator: PrivateKey, admin: PrivateKey) -> Self {
        Self { operator, admin }
    }

    pub(super) fn first_admin(&self) -> (PersonAdd, Opening) {
        let roles = vec![Role::Admin, Role::Approver];
        person(ADMIN, &self.admin, "Ada Approver", roles)
    }

    pub(super) fn target(&self, account: &str, port: u16) -> Target {
        Target {
            loopback: true,
            max_seconds: 3600,
            break_glass: vec![OPERATOR],
            review_seconds: 60,
            stream_cap: 1 << 30,
            ..Target::ssh(
                "db1",
                ("127.0.0.1", port),
                public(&self.admin),
                account,
                ADMIN,
            )
        }
    }

    pub(super) async fn say(
        &self,
        ledger: &Ledger,
        by: PersonId,
        say: Say,
        openings: Vec<Opening>,
        scope: Scope,
    ) -> (StatementId, Receipt) {
        let key = self.key_of(by);
        let done = self.say_with(ledger, (by, key), say, openings, scope).await;
        done.unwrap()
    }

    fn key_of(&self, by: PersonId) -> &PrivateKey {
        if by == ADMIN {
            &self.admin
        } else {
            &self.operator
        }
    }

    /// What somebody signs and does not hand in.
    pub(super) fn sign(&self, ledger: &Ledger, by: PersonId, say: Say) -> (StatementId, Signed) {
        let key = self.key_of(by);
        Self::signed(ledger, (by, key), say)
    }

    fn signed(
        ledger: &Ledger,
        (by, key): (PersonId, &PrivateKey),
        say: Say,
    ) -> (StatementId, Signed) {
        let statement = Statement {
            v: 1,
            log: "ledger.example/gateway".into(),
            by,
            at: ledger.now(),
            id: StatementId::new(random()),
            seen: Seen {
                size: 0,
                root: Root(Hash::ZERO),
            },
            say,
        };
        let text = statement.to_text().unwrap();
        let signature = key
            .sign(&statement.say.namespace(), HashAlg::Sha512, text.as_bytes())
            .unwrap();
        let armour = signature
            .to_pem(russh::keys::ssh_key::LineEnding::LF)
            .unwrap();
        let sig = Bytes(ascribe_evidence::dearmour(&armour).unwrap());
        (statement.id, Signed { text, sig })
    }

    /// The same with that key; it may be refused.
    pub(super) async fn say_with(
        &self,
        ledger: &Ledger,
        (by, key): (PersonId, &PrivateKey),
        say: Say,
        openings: Vec<Opening>,
        scope: Scope,
    ) -> Result<(StatementId, Receipt), RecordError> {
        let (id, signed) = Self::signed(ledger, (by, key), say);
        let scope = match scope {
            Scope::Request(_) => Scope::Request(id),
            Scope::Login(_) => Scope::Login(id),
            other => other,
        };
        let proposal = Proposal {
            id: EntryId::new(random()),
            writer: SERVER.to_owned(),
            body: Body::Statement(signed),
            openings,
            scope,
        };
        Ok((id, ledger.record(proposal).await?))
    }

    /// The operator, and the target.
    pub(super) async fn enrol(&self, ledger: &Ledger, target: Target) {
        let roles = vec![Role::Requester];
        let (add, name) = person(OPERATOR, &self.operator, "Olu Operator", roles);
        let scope = Scope::Person(OPERATOR);
        self.say(ledger, ADMIN, Say::PersonAdd(add), vec![name], scope)
            .await;
        self.say(ledger, ADMIN, Say::TargetSet(target), vec![], Scope::None)
            .await;
    }

    /// The operator asks.
    pub(super) async fn request(
        &self,
        ledger: &Ledger,
        account: &str,
        length: Duration,
        ticket: Ticket,
    ) -> Asked {
        self.request_with(ledger, account, length, ticket, Vec::new())
            .await
    }

    /// The same, with what is to be forwarded.
    pub(super) async fn request_with(
        &self,
        ledger: &Ledger,
        account: &str,
        length: Duration,
        ticket: Ticket,
        forwards: Vec<Forward>,
    ) -> Asked {
        let why = b"restart the stuck replica of the order database";
        let why = Opening::new("justification", random(), why.to_vec());
        let now = ledger.now();
        let request = Request {
            forwards,
            target: "db1".into(),
            account: account.to_owned(),
            not_before: now,
            not_after: now.plus_millis(i64::try_from(length.as_millis()).unwrap()),
            uses: Uses::Reusable,
            justification: Prose::of(&why),
            recurrence: None,
            beneficiary: None,
            ticket: Some(ticket),
            sql: None,
        };
        let scope = Scope::Request(StatementId::new([0; 16]));
        let (id, receipt) = self
            .say(ledger, OPERATOR, Say::Request(request), vec![why], scope)
            .await;
        Asked {
            id,
            entry: entry_hash(&receipt.entry),
        }
    }

    /// The operator asks for a workload that they answer for.
    pub(super) async fn request_for(
        &self,
        ledger: &Ledger,
        account: &str,
        workload: PersonId,
        ticket: Ticket,
    ) -> Asked {
        let why = b"deploy what was merged to the main branch";
        let why = Opening::new("justification", random(), why.to_vec());
        let now = ledger.now();
        let request = Request {
            beneficiary: Some(workload),
            ticket: Some(ticket),
            ..Request::plain(
                "db1",
                account,
                (now, now.plus_millis(1_800_000)),
                Prose::of(&why),
            )
        };
        let scope = Scope::Request(StatementId::new([0; 16]));
        let (id, receipt) = self
            .say(ledger, OPERATOR, Say::Request(request), vec![why], scope)
            .await;
        Asked {
            id,
            entry: entry_hash(&receipt.entry),
        }
    }

    /// The admin says yes.
    pub(super) async fn approve(&self, ledger: &Ledger, asked: Asked) -> GrantId {
        let yes = Say::Approval(Answer {
            of: asked.id,
            entry: asked.entry,
            remark: None,
        });
        self.say(ledger, ADMIN, yes, vec![], Scope::None).await;
        super::world::until("grant", || {
            ledger.with_state(|state| {
                let mut grants = state.grants.iter();
                grants
                    .find(|(_, grant)| grant.request == asked.id)
                    .map(|(id, _)| *id)
            })
        })
        .await
    }

    /// The admin takes it back.
    pub(super) async fn revoke(&self, ledger: &Ledger, grant: GrantId) {
        let why = b"the change was called off by its owner";
        let why = Opening::new("reason", random(), why.to_vec());
        let revocation = Say::Revocation(Revocation {
            grant,
            reason: Prose::of(&why),
        });
        let scope = Scope::Request(StatementId::new([0; 16]));
        self.say(ledger, ADMIN, revocation, vec![why], scope).await;
    }

    /// The operator gets another key.
    pub(super) async fn key_add(&self, ledger: &Ledger, key: &PrivateKey) {
        self.enrol_key(ledger, public(key)).await;
    }

    /// The same of a key that the test has no file of.
    pub(super) async fn enrol_key(&self, ledger: &Ledger, key: SshKey) {
        let say = Say::KeyAdd(PersonKey {
            person: OPERATOR,
            key,
        });
        self.say(ledger, ADMIN, say, vec![], Scope::None).await;
    }

    /// The operator gives a key up.
    pub(super) async fn key_revoke(&self, ledger: &Ledger, key: &PrivateKey) {
        let say = Say::KeyRevoke(PersonKey {
            person: OPERATOR,
            key: public(key),
        });
        self.say(ledger, OPERATOR, say, vec![], Scope::None).await;
    }

    /// The admin registers an outside certificate authority.
    pub(super) async fn ca_set(&self, ledger: &Ledger, authority: Authority) {
        let say = Say::CaSet(authority);
        self.say(ledger, ADMIN, say, vec![], Scope::None).await;
    }

    /// The operator takes a grant in an emergency.
    pub(super) async fn break_glass(&self, ledger: &Ledger, account: &str, ticket: Ticket) {
        let why = b"the primary is down and nobody answers";
        let why = Opening::new("emergency", random(), why.to_vec());
        let say = Say::BreakGlass(BreakGlass {
            target: "db1".into(),
            account: account.to_owned(),
            not_after: ledger.now().plus_millis(1_800_000),
            emergency: Prose::of(&why),
            ticket: Some(ticket),
        });
        let scope = Scope::Request(StatementId::new([0; 16]));
        self.say(ledger, OPERATOR, say, vec![why], scope).await;
    }
}

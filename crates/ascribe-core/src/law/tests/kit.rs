//! People, keys, targets and statements that the tests share.

use super::*;

pub(super) const ORIGIN: &str = "example.org/log";
pub(super) const T0: i64 = 1_764_000_000_000;
pub(super) const MIN: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MIN;
pub(super) const WHY: &str = "restart the stuck replica";

// People: two administrators, a requester who also approves, two approvers, an auditor.
pub(super) const ADA: u8 = 1;
pub(super) const BEN: u8 = 2;
pub(super) const REQ: u8 = 3;
pub(super) const PAT: u8 = 4;
pub(super) const QUI: u8 = 5;
pub(super) const AUD: u8 = 6;

pub(super) type AskRef = (StatementId, EntryHash);
/// A change and the code of the refusal that it meets.
pub(super) type Edit<T> = (fn(&mut T), &'static str);

pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}
pub(super) fn person(n: u8) -> PersonId {
    PersonId::new([n; 16])
}
pub(super) fn key(n: u8, nth: u8) -> SshKey {
    let blob = Sha256::digest([n, nth]);
    SshKey(format!("ssh-ed25519 {}", encoding::base64_std(&blob)))
}
pub(super) fn writer_key(id: &str) -> SigningKey {
    let seed: [u8; 32] = Sha256::digest(id).into();
    SigningKey::from_seed(id, &seed).unwrap()
}

/// A signature here is the key's text and a hash over namespace and message.
pub(super) struct Fake;

pub(super) fn fake_sig(key: &SshKey, namespace: &str, message: &[u8]) -> Vec<u8> {
    let hash = Sha256::new()
        .chain_update(&key.0)
        .chain_update([0])
        .chain_update(namespace)
        .chain_update([0])
        .chain_update(message)
        .finalize();
    let mut sig = key.0.clone().into_bytes();
    sig.push(0);
    sig.extend_from_slice(&hash);
    sig
}

impl Judge for Fake {
    fn sshsig(&self, namespace: &str, message: &[u8], sig: &[u8]) -> Option<SshKey> {
        let end = sig.iter().position(|b| *b == 0)?;
        let key = SshKey(String::from_utf8(sig[..end].to_vec()).ok()?);
        (fake_sig(&key, namespace, message) == sig).then_some(key)
    }
    /// A token here is the commitment that it carries, a line feed and its claims.
    fn token(
        &self,
        _: &Provider,
        keys: &[u8],
        token: &[u8],
        asked: &TokenAsked<'_>,
    ) -> Result<Claims, Denied> {
        let refuse = |text: &str| Denied::new("token", text);
        let text = std::str::from_utf8(token).map_err(|_| refuse("no text"))?;
        let (commitment, claims) = text.split_once('\n').ok_or_else(|| refuse("no line"))?;
        let mut claims: Claims = serde_json::from_str(claims).map_err(|_| refuse("no claims"))?;
        let bound = commitment == crate::identity::key_commitment(asked.key, asked.rz);
        let facts = claims.facts.iter().map(|fact| fact.claim.as_str());
        if (claims.binding != crate::identity::Binding::None && !bound)
            || !self.provider_keys(keys)?.contains(&claims.key)
            || !facts.eq(asked.facts.iter().copied())
        {
            return Err(refuse("not this key's, this provider's or these facts'"));
        }
        let groups = &mut claims.groups;
        groups.retain(|group| asked.groups.contains(&(&group.claim, &group.value)));
        let managers = &mut claims.managers;
        managers.retain(|manager| asked.managers.contains(&manager.claim.as_str()));
        Ok(claims)
    }
    fn provider_keys(&self, body: &[u8]) -> Result<Vec<ContentDigest>, Denied> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let keys: Result<Vec<ContentDigest>, _> = text.lines().map(str::parse).collect();
        keys.ok()
            .filter(|keys| !keys.is_empty())
            .ok_or_else(|| Denied::new("jwks", "no keys"))
    }
}

/// Everything in the state, in a stable order.
pub(super) fn fingerprint(state: &State) -> String {
    let State {
        origin,
        genesis,
        size,
        last_at,
        law_head,
        people,
        targets,
        cas,
        delegations,
        agents,
        delegated,
        asks,
        grants,
        sessions,
        keys,
        chosen,
        openers,
        open_actions,
        statements,
        ids,
        writers,
        excerpt,
        version,
        open_asks,
        awaited,
        live,
        revoked_keys,
        providers,
        workloads,
        logins,
        links,
        spent,
        spent_until,
        session_keys,
        live_logins,
        witnesses,
        directories,
        logins_of,
    } = state;
    let ids: BTreeMap<_, _> = ids.iter().collect();
    format!(
        "{:?}",
        (
            (
                origin, genesis, size, last_at, law_head, people, targets, asks
            ),
            (
                grants,
                sessions,
                keys,
                chosen,
                open_actions,
                statements,
                ids,
                writers
            ),
            (
                openers,
                excerpt,
                version,
                open_asks,
                awaited,
                live,
                revoked_keys,
                cas,
                witnesses
            ),
            (
                providers,
                workloads,
                logins,
                links,
                spent,
                spent_until,
                session_keys,
                live_logins,
                directories,
                logins_of
            ),
            (delegations, agents, delegated),
        )
    )
}

pub(super) fn opening(field: &str, text: &str) -> Opening {
    let salt: [u8; 32] = Sha256::digest(format!("{field}/{text}")).into();
    Opening::new(field, salt, text.as_bytes().to_vec())
}
pub(super) fn prose(field: &str, text: &str) -> (Prose, Opening) {
    let opening = opening(field, text);
    (Prose::of(&opening), opening)
}
pub(super) fn enrol(n: u8, roles: &[Role]) -> (PersonAdd, Opening) {
    let name = opening("name", &format!("person {n}"));
    let add = PersonAdd {
        person: person(n),
        name: name.commitment(),
        keys: vec![key(n, 0), key(n, 1)],
        roles: roles.to_vec(),
    };
    (add, name)
}
pub(super) fn everybody() -> Vec<(PersonAdd, Opening)> {
    vec![
        enrol(ADA, &[Role::Admin]),
        enrol(BEN, &[Role::Admin]),
        enrol(REQ, &[Role::Requester, Role::Approver]),
        enrol(PAT, &[Role::Approver, Role::Requester]),
        enrol(QUI, &[Role::Approver]),
        enrol(AUD, &[Role::Auditor]),
    ]
}
pub(super) fn genesis(admin_quorum: u32, people: &[(PersonAdd, Opening)]) -> Genesis {
    Genesis {
        log_key: writer_key(ORIGIN).verifier().to_string(),
        admins: people.iter().map(|(add, _)| add.clone()).collect(),
        admin_quorum,
        writers: [SERVER, "gw"]
            .iter()
            .map(|id| WriterKey {
                id: (*id).to_owned(),
                key: Bytes(writer_key(id).verifier().public_key().to_vec()),
            })
            .collect(),
    }
}
pub(super) fn target(name: &str) -> Target {
    Target {
        accounts: vec!["root".to_owned(), "app".to_owned()],
        max_seconds: 4 * 3600,
        break_glass: vec![person(REQ)],
        review_seconds: 2 * 3600,
        stream_cap: 1 << 20,
        ..Target::ssh(name, ("10.0.0.1", 22), key(200, 0), "root", person(ADA))
    }
}
/// An authority whose principal `req` stands for the requester.
pub(super) fn authority(name: &str) -> Authority {
    Authority {
        keys: vec![key(210, 0), key(210, 1)],
        name: name.to_owned(),
        people: vec![Mapping {
            person: person(REQ),
            principal: "req".to_owned(),
        }],
        revoked: RevokedCertificates::default(),
    }
}
pub(super) fn sign(key: &SshKey, statement: &Statement) -> Signed {
    let text = statement.to_text().unwrap();
    let sig = fake_sig(key, &statement.say.namespace(), text.as_bytes());
    Signed {
        text,
        sig: Bytes(sig),
    }
}
pub(super) fn answer(ask: AskRef) -> Answer {
    Answer {
        of: ask.0,
        entry: ask.1,
        remark: None,
    }
}

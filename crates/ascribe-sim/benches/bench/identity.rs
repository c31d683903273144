//! Identities: what the law adds to the bare checks of signatures when it takes a login or a statement,
//! and the whole proof of sessions by all kinds of actors.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use ascribe_core::law::{Judge as _, State};
use ascribe_core::record::Proposal;
use ascribe_core::statement::{Say, UseGrant};
use ascribe_evidence::{Checker, SshSignatures};
use aws_lc_rs::signature::ParsedPublicKey;

use crate::Plan;
use crate::read::whole;
use crate::realm::{Actor, By, Realm};
use crate::table::{Row, median};

/// Most delegations that are measured a round: 48 of each person.
const MAX_STEPS: usize = 768;

/// A signature by a key that was parsed beforehand.
pub(crate) struct Bare {
    pub(crate) key: ParsedPublicKey,
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// One operation of the law, and the signatures that it must check at least.
struct Operation {
    proposal: Proposal,
    namespace: String,
    /// Those that its token holds.
    token: Vec<Bare>,
}

fn signed(proposal: Proposal) -> Result<Operation> {
    let (namespace, _, _) = Realm::signature(&proposal)?;
    Ok(Operation {
        proposal,
        namespace,
        token: Vec::new(),
    })
}

fn log_in(realm: &mut Realm, actor: &Actor) -> Result<Operation> {
    let (login, _) = realm.log_in(actor)?;
    let token = realm.bare(actor, &login)?;
    let mut operation = signed(login)?;
    operation.token = token;
    Ok(operation)
}

fn bare(operation: &Operation) -> Result<()> {
    let (_, text, sig) = Realm::signature(&operation.proposal)?;
    let key = SshSignatures.sshsig(&operation.namespace, text, sig);
    ensure!(key.is_some(), "a statement does not verify");
    for bare in &operation.token {
        bare.key.verify_sig(&bare.message, &bare.signature)?;
    }
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    act()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The law and the bare checks take turns at each operation, so that whatever else the machine does
/// falls on both alike. A round's time is that of its middle operation.
fn against(
    what: &'static str,
    peer: &'static str,
    realm: &Realm,
    operations: &[Operation],
    rounds: usize,
) -> Result<Row> {
    // As in the server: the providers' keys were parsed before.
    let judge = Checker::new();
    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        let mut taken: State = realm.state.clone();
        let mut replayed: State = realm.state.clone();
        let (mut take, mut replay, mut least) = (vec![], vec![], vec![]);
        for operation in operations {
            least.push(timed(|| bare(operation))?);
            let mut done = Vec::new();
            take.push(timed(|| {
                done = taken.sequence(&judge, realm.now, &operation.proposal)?;
                Ok(())
            })?);
            replay.push(timed(|| {
                for entry in &done {
                    black_box(replayed.apply(&judge, &entry.bytes)?);
                }
                Ok(())
            })?);
        }
        let [take, replay, least] = [take, replay, least].map(|times| median(&times));
        let round = [1.0 / take, 1.0 / least, least / take, replay * 1e6];
        for (samples, value) in samples.iter_mut().zip(round) {
            samples.push(value);
        }
    }
    let [take, least, ratio, replay] = samples.map(|samples| median(&samples));
    Ok(Row {
        what,
        value: take,
        unit: "/s/core",
        peer: Some((peer, least)),
        ratio: Some(ratio),
        bar: "ratio >= 0.8",
        met: Some(ratio >= 0.8),
        note: format!(
            "{rounds} rounds of {} statements, one thread, no disk; keys of tokens are parsed beforehand on \
             both sides",
            operations.len()
        ),
        parts: vec![
            ("us to take one", 1e6 / take),
            ("us of that in bare checks", 1e6 / least),
            ("us to replay one, without the token", replay),
        ],
    })
}

/// All rows about identities.
pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut realm = Realm::new()?;
    let mut rows = Vec::new();
    for (by, what, peer) in [
        (
            By::PersonsLogin,
            "login of a person, RS256",
            "bare SSHSIG + RS256",
        ),
        (
            By::WorkloadsLogin,
            "login of a workload, ES256",
            "bare SSHSIG + ES256",
        ),
        (
            By::Svid,
            "login by X.509-SVID, ES256",
            "bare SSHSIG + 2 ES256",
        ),
    ] {
        let mut operations = Vec::new();
        for actor in realm.actors(by).iter().cycle().take(plan.logins) {
            operations.push(log_in(&mut realm, actor)?);
        }
        rows.push(against(what, peer, &realm, &operations, plan.rounds)?);
    }
    let mut operations = Vec::new();
    for actor in realm.actors(By::Key).iter().cycle().take(plan.logins) {
        let say = Say::Use(UseGrant { grant: actor.grant });
        operations.push(signed(realm.says(actor, say, vec![])?)?);
    }
    let (what, peer) = ("statement by key: `use`", "bare SSHSIG");
    rows.push(against(what, peer, &realm, &operations, plan.rounds)?);
    operations.clear();
    // A person has at most 64 delegations at a time.
    for actor in realm
        .actors(By::Agent)
        .iter()
        .cycle()
        .take(plan.logins.min(MAX_STEPS))
    {
        operations.push(signed(realm.last_step(actor)?)?);
    }
    let what = "delegation, fourth of its chain";
    rows.push(against(what, peer, &realm, &operations, plan.rounds)?);

    let full = realm.fill(plan)?;
    rows.push(whole("whole verify, all kinds of actors", &full, plan)?);
    Ok(rows)
}

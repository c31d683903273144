//! The session itself: who came in, what was done, in which order and when.

use ascribe_core::entry::{OpenedBy, SessionOpen};
use ascribe_core::law::SERVER;
use ascribe_core::statement::Say;
use ascribe_tlog::VerifierKey;

use super::Listing;
use crate::links::{
    Chain, Link, LinkKind, Signer, Trusted, Whole, Written, key_id, list, quoted, ticked,
};
use crate::witnesses::Witnessed;

impl Listing<'_> {
    fn writer(&self, name: &str) -> Signer {
        let mut writers = self.state.genesis.iter().flat_map(|g| &g.writers);
        let key = writers.find(|writer| writer.id == name);
        let key = key.and_then(|writer| <[u8; 32]>::try_from(writer.key.0.as_slice()).ok());
        let key = key.and_then(|key| VerifierKey::from_public_key(name, &key).ok());
        Signer::other(
            name,
            "writer key",
            key.map_or_else(String::new, |key| key_id(name, key.key_id())),
        )
    }

    fn is_signed(&self, writer: &str, seq: u64) -> bool {
        let chain = self.kept.chains.get(writer);
        chain.is_some_and(|chain| chain.signed().contains(&seq))
    }

    pub(super) fn opening(&mut self, open: &SessionOpen, at: u64) -> Option<Link> {
        let (writer, seq) = self.kept.opening.clone()?;
        let gateway = format!("the gateway (writer {})", ticked(&writer, 63));
        let actor = match &open.certificate {
            // It may have been enrolled since.
            Some(_) => Signer {
                principal: Some(open.person),
                name: self.names.get(&open.person).cloned(),
                with: "certified key",
                key: open.key.clone(),
            },
            None => self.signer(open.person, &open.key),
        };
        let door = serde_json::to_value(open.door).ok();
        let door = door.as_ref().and_then(|door| door.as_str()).unwrap_or("?");
        let mut link = Link {
            link: LinkKind::Opening,
            what: format!("{} came in by the door `{door}`", actor.who()),
            entries: vec![at],
            keys: Vec::new(),
            signed_by: Vec::new(),
            testimony: None,
            trust: Vec::new(),
        };
        if open.opened_by == OpenedBy::Signed {
            link.trust = self.holder(&open.key);
            let what = "opening no other connection with it";
            link.trust.push(Trusted::new(gateway, what));
            link.signed_by.push(actor);
            return Some(link);
        }
        link.testimony = Some("gateway");
        if self.is_signed(&writer, seq) {
            link.signed_by.push(self.writer(&writer));
        }
        if open.delegation.is_none() && open.certificate.is_none() {
            self.wanted.push(open.key.clone());
        }
        let key = quoted(&open.key, 200);
        link.what = format!("{} with {} {key}", link.what, actor.with);
        let mut saw = "whether whoever came in had that key";
        if let Some(certificate) = &open.certificate {
            let name = ticked(&certificate.ca_name, 63);
            link.what = format!(
                "{}, by certificate {} of {name}, key {}",
                link.what,
                certificate.serial.0,
                quoted(&certificate.ca, 200)
            );
            let who = format!("whoever holds that key of {name}");
            let what = "whom it certifies";
            link.trust.push(Trusted::new(who, what));
            saw = "whether it saw such a certificate, and whoever came in had its key";
        }
        link.trust.push(Trusted::new(gateway, saw));
        if link.signed_by.is_empty() {
            let what = "whose word that is: no signed head here covers it";
            link.trust.push(Trusted::new("the log", what));
        }
        Some(link)
    }

    /// What was done, by writer.
    pub(super) fn record(&self) -> Vec<Link> {
        let one = |(name, wrote): (&String, &Written)| {
            let signed = self.kept.chains.get(name).map(Chain::signed);
            let signed = signed.unwrap_or_default();
            let all = wrote.entries.len();
            let fixed = wrote.entries.iter().filter(|(_, seq)| signed.contains(seq));
            let fixed = fixed.count();
            let what = [
                "intent(s)",
                "outcome(s)",
                "of evidence",
                "refusal(s)",
                "close",
            ];
            let parts = wrote.counts.iter().zip(what).filter(|(n, _)| **n > 0);
            let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
            let (whose, who) = match name.as_str() {
                SERVER => ("server", "the server".to_owned()),
                _ => (
                    "gateway",
                    format!("the gateway (writer {})", ticked(name, 63)),
                ),
            };
            let mut trust = vec![Trusted::new(who, "what was done and what came of it")];
            if fixed < all {
                let which = match fixed {
                    0 => "these".to_owned(),
                    _ => format!("{} of these {all}", all - fixed),
                };
                let what = format!("whose {which} are: no signed head here covers them");
                trust.push(Trusted::new("the log", what));
            }
            Link {
                link: LinkKind::Record,
                what: list(&parts),
                entries: wrote.entries.iter().map(|(index, _)| *index).collect(),
                keys: Vec::new(),
                signed_by: (fixed > 0).then(|| self.writer(name)).into_iter().collect(),
                testimony: Some(whose),
                trust,
            }
        };
        self.kept.written.iter().map(one).collect()
    }

    pub(super) fn order(&mut self, witnessed: Option<&Witnessed>) -> [Link; 2] {
        let what = match self.kept.whole {
            Whole::Yes => "showing everybody the same entries",
            Whole::No => "showing everybody the same entries, and whether this law was the newest",
        };
        let order = Link {
            link: LinkKind::Order,
            what: "the order of these entries, and all of the session's".to_owned(),
            entries: Vec::new(),
            keys: Vec::new(),
            signed_by: self.kept.log.clone(),
            testimony: None,
            trust: vec![Trusted::new("the log", what)],
        };
        let mut time = Link {
            link: LinkKind::Time,
            what: "every time, as the log states it".to_owned(),
            entries: Vec::new(),
            keys: Vec::new(),
            signed_by: Vec::new(),
            testimony: Some("log"),
            trust: vec![Trusted::new("the log", "when")],
        };
        let Some(seen) = witnessed else {
            return [order, time];
        };
        let whose = match seen.policy {
            "reader" => "of your policy",
            _ => "of the log's own policy",
        };
        time.what = format!("{} entries were there by {}", seen.size, seen.before);
        time.testimony = None;
        time.signed_by = seen
            .by
            .iter()
            .zip(&seen.keys)
            .map(|(name, key)| Signer::other(name, "witness key", key.clone()))
            .collect();
        let who = format!(
            "as many of them as quorum {} {whose} needs",
            ticked(&seen.quorum, 80)
        );
        time.trust = vec![
            Trusted::new(who, "the time, and for there being no other history"),
            Trusted::new("the log", "when before that"),
        ];
        if seen.policy != "reader" {
            let is = |say: &Say| matches!(say, Say::WitnessSet(_));
            if let Some(ask) = self.proposal(u64::MAX, is) {
                let by = self.administrators(ask);
                time.trust
                    .extend(self.by_quorum(&by, "who the witnesses are"));
            }
        }
        [order, time]
    }
}

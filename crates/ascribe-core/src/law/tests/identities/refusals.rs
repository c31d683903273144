//! Logins that were refused: counted, and changing nothing.

use super::*;
use crate::directory::RefusedCount;
use crate::identity::LoginRefusal;

impl World {
    /// The server says which logins it refused.
    pub(in super::super) fn refuse_logins(
        &mut self,
        writer: &str,
        edit: impl FnOnce(&mut LoginRefusal),
    ) -> Result<(), Denied> {
        let count = |code: &str, count| RefusedCount {
            code: code.to_owned(),
            count,
        };
        let mut refusal = LoginRefusal {
            from: self.now.plus_millis(-MIN),
            provider: Some("idp".to_owned()),
            refused: vec![count("no-identity", 3), count("token-aud", 1)],
            until: self.now,
        };
        edit(&mut refusal);
        self.record(writer, Body::LoginRefusal(refusal), Vec::new())?;
        Ok(())
    }
}

#[test]
fn which_logins_were_refused_is_counted_and_changes_nothing() {
    let mut w = World::with_providers();
    let edits: [Edit<LoginRefusal>; 11] = [
        (|r| r.provider = Some("other".into()), "no-provider"),
        (|r| r.until = r.until.plus_millis(1), "time"),
        (|r| r.from = r.until.plus_millis(1), "time"),
        (|r| r.refused.clear(), "refusal"),
        (|r| r.refused.swap(0, 1), "refusal"),
        (|r| r.refused[1] = r.refused[0].clone(), "refusal"),
        (|r| r.refused[0].count = 0, "refusal"),
        (|r| r.refused[0].code.clear(), "refusal"),
        (|r| r.refused[0].code = "no identity".into(), "refusal"),
        (|r| r.refused[1].code = "x".repeat(65), "refusal"),
        (
            |r| {
                let one = |n: usize| RefusedCount {
                    code: format!("x{}", "y".repeat(n)),
                    count: 1,
                };
                r.refused = (0..65).map(one).collect();
            },
            "refusal",
        ),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        assert_eq!(no(w.refuse_logins(SERVER, edit)), code, "{nth}");
    }
    assert_eq!(no(w.refuse_logins("gw", |_| ())), "writer");
    let (law, before) = (w.state.law_head, w.state.providers.clone());
    w.refuse_logins(SERVER, |_| ()).unwrap();
    w.refuse_logins(SERVER, |r| r.provider = None).unwrap();
    assert_eq!((w.state.law_head, &w.state.providers), (law, &before));
    // A login of somebody is neither harder nor easier afterwards.
    w.log_in(REQ, |_| ()).unwrap();
    // A provider that was withdrawn is still named.
    let gone = Provider {
        withdrawn: true,
        ..provider("idp", ProviderKind::Oidc)
    };
    w.say(ADA, Say::ProviderSet(gone), vec![]).unwrap();
    w.refuse_logins(SERVER, |_| ()).unwrap();
}

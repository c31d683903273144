//! Whom a person's token calls their manager.

use ascribe_core::identity::{ProviderKind, StatedManager, subject};
use serde_json::{Value, json};

use super::issuer::Login;

fn found(
    kind: ProviderKind,
    edit: impl FnOnce(&mut Login),
) -> Result<Vec<StatedManager>, &'static str> {
    let mut login = Login::of(kind);
    edit(&mut login);
    let claims = login.check().map_err(|denied| denied.code)?;
    Ok(claims.managers)
}

fn manager(claim: &str, issuer: &str, sub: &str) -> StatedManager {
    StatedManager {
        claim: claim.to_owned(),
        subject: subject(issuer, sub),
    }
}

#[test]
fn a_manager_is_a_subject_at_the_same_issuer_and_looked_for_only_where_asked() {
    let of = |asked: Vec<&'static str>| {
        found(ProviderKind::Oidc, |login| {
            login.claim("manager", json!("boss"));
            login.claim("org", json!({"head": "Head@corp.example", "none": null}));
            login.managers = asked;
        })
    };
    assert_eq!(of(vec![]), Ok(vec![]));
    let asked = vec!["org/none", "other", "org/head", "manager", "manager"];
    let issuer = "https://id.example";
    let good = vec![
        manager("manager", issuer, "boss"),
        manager("org/head", issuer, "Head@corp.example"),
    ];
    assert_eq!(of(asked), Ok(good));
    // Nobody is named by nothing.
    for none in [json!(""), Value::Null] {
        let none = found(ProviderKind::Oidc, |login| {
            login.claim("manager", none);
            login.managers = vec!["manager"];
        });
        assert_eq!(none, Ok(vec![]));
    }
    for bad in [
        json!(5),
        json!(true),
        json!({"sub": "boss"}),
        json!("x".repeat(256)),
    ] {
        let bad = found(ProviderKind::Oidc, |login| {
            login.claim("manager", bad);
            login.managers = vec!["manager"];
        });
        assert_eq!(bad, Err("token-manager"));
    }
}

#[test]
fn entra_names_an_object_of_the_issuers_tenant() {
    let object = "11111111-2222-3333-4444-555555555555";
    let login = Login::of(ProviderKind::Entra);
    let issuer = login.provider.issuer.clone();
    let tenant = issuer.split('/').nth(3).unwrap();
    for said in [object.to_owned(), format!("{tenant}/{object}")] {
        let found = found(ProviderKind::Entra, |login| {
            login.claim("manager", json!(said));
            login.managers = vec!["manager"];
        });
        let whole = format!("{tenant}/{object}");
        assert_eq!(found, Ok(vec![manager("manager", &issuer, &whole)]));
    }
}

#[test]
fn a_jobs_token_names_no_manager() {
    let job = found(ProviderKind::Github, |login| {
        login.claim("manager", json!("boss"));
        login.managers = vec!["manager"];
    });
    assert_eq!(job, Ok(vec![]));
}

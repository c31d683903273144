//! Groups that a person's token lists.

use ascribe_core::identity::{Fact, ProviderKind};
use serde_json::{Value, json};

use super::issuer::Login;

fn found(kind: ProviderKind, edit: impl FnOnce(&mut Login)) -> Result<Vec<Fact>, &'static str> {
    let mut login = Login::of(kind);
    edit(&mut login);
    let claims = login.check().map_err(|denied| denied.code)?;
    Ok(claims.groups)
}

fn group(claim: &str, value: &str) -> Fact {
    Fact {
        claim: claim.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn only_groups_that_are_asked_for_are_found_and_only_exactly() {
    let listed = json!(["DBA", "dba", "Everybody", "DBA", 7, null, ["Nested"]]);
    let of = |asked: Vec<(&'static str, &'static str)>| {
        let listed = listed.clone();
        found(ProviderKind::Oidc, |login| {
            login.claim("groups", listed);
            login.claim("realm_access", json!({"roles": ["Auditors"]}));
            login.groups = asked;
        })
    };
    assert_eq!(of(vec![]), Ok(vec![]));
    // Sorted, whatever order they are asked for in; into objects, as Keycloak has its roles.
    let asked = vec![
        ("realm_access/roles", "Auditors"),
        ("groups", "DBA"),
        ("groups", "DB"),
        ("groups", "DBA "),
        ("groups", "7"),
        ("groups", "Nested"),
        ("other", "DBA"),
        ("groups", "DBA"),
    ];
    let good = vec![
        group("groups", "DBA"),
        group("realm_access/roles", "Auditors"),
    ];
    assert_eq!(of(asked), Ok(good));
}

#[test]
fn a_claim_that_is_no_list_of_groups_is_refused_where_it_is_looked_at() {
    let of = |value: Value| {
        found(ProviderKind::Entra, |login| {
            login.claim("groups", value);
            login.groups = vec![("groups", "DBA")];
        })
    };
    assert_eq!(of(json!("DBA")), Ok(vec![group("groups", "DBA")]));
    for none in [json!("DBA Operators"), json!([]), Value::Null] {
        assert_eq!(of(none), Ok(vec![]));
    }
    for bad in [json!({"DBA": true}), json!(true), json!(5)] {
        assert_eq!(of(bad), Err("token-groups"));
    }
    // Two claims that the name may mean: somebody might have a say in one of them.
    let two = found(ProviderKind::Oidc, |login| {
        login.claim("a/b", json!(["DBA"]));
        login.claim("a", json!({"b": []}));
        login.groups = vec![("a/b", "DBA")];
    });
    assert_eq!(two, Err("token-groups"));
    let unread = found(ProviderKind::Oidc, |login| login.claim("groups", json!(5)));
    assert_eq!(unread, Ok(vec![]));
}

#[test]
fn a_jobs_token_has_no_groups() {
    let job = found(ProviderKind::Github, |login| {
        login.claim("groups", json!(["DBA"]));
        login.groups = vec![("groups", "DBA")];
    });
    assert_eq!(job, Ok(vec![]));
}

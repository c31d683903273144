//! The documented sequences of Okta and Entra, and what they change.

use std::time::Duration;

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::{Body, CloseReason, Entry};
use serde_json::json;

use super::office::{Office, holds};
use super::providers::Provider;
use super::world::{PATIENCE, wait_for};

#[test]
fn who_is_called_inactive_is_out_within_seconds_and_comes_back() {
    let mut office = Office::open(&["--suspend"]);
    let id = office.operator();
    let place = office.world.place();
    let user = format!("/Users/{id}");
    // Each spelling of it that the two directories have.
    let inactive = [
        json!([{ "op": "replace", "value": { "active": false } }]),
        json!([{ "op": "Replace", "path": "active", "value": "False" }]),
        json!([{ "op": "replace", "path": "active", "value": false }]),
        json!([{ "op": "Add", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": "false" }]),
    ];
    let active = [
        json!([{ "op": "replace", "value": { "active": true } }]),
        json!([{ "op": "Replace", "path": "active", "value": "True" }]),
    ];
    let mut sleeper = office.world.sleeper();
    let mut ssh = sleeper.ssh.take();
    for (nth, inactive) in inactive.into_iter().enumerate() {
        let (status, shown) = office.patch(&user, inactive);
        assert_eq!((status, &shown["active"]), (200, &json!(false)), "{shown}");
        assert!(office.is_suspended());
        if let Some(ssh) = ssh.take() {
            let out = ssh.wait(Duration::from_secs(10));
            assert_ne!(out.code, Some(0), "{out:?}");
        }
        let out = office.world.ssh(&place, "id");
        assert_eq!(out.code, Some(255), "{out:?}");
        let ask = [
            "request",
            &place,
            "--why",
            "let me in all the same",
            "--ticket",
            "demo:OPS-42",
        ];
        let told = office.world.run_as("operator", &ask).exits(2).stderr;
        assert!(told.contains("suspended by directory"), "{told}");
        if nth == 0 {
            // Neither a restart nor its replay forgets it.
            office.restart();
            assert!(office.is_suspended());
            assert_eq!(office.get(&user).1["active"], json!(false));
        }
        let (status, _) = office.patch(&user, active[nth % 2].clone());
        assert_eq!(status, 200);
        assert!(!office.is_suspended());
        office.world.ssh(&place, "echo back").exits(0);
    }
    // Deleted is inactive; made again is another user of the same person.
    assert_eq!(office.delete(&user).0, 204);
    assert_eq!(office.get(&user).0, 404);
    assert!(office.is_suspended());
    assert_ne!(office.operator(), id);
    assert!(!office.is_suspended());
    assert!(!holds(&office.world.data(), "ada@corp.example"));
}

/// What a bundle says of the end of its session: from the newest word of a directory before it, in milliseconds.
fn after_the_directory(office: &Office, session: &str) -> (i64, CloseReason) {
    office.world.ended_session(session);
    let file = office.world.path("ended.bundle");
    let args = ["export", session, "-f", file.to_str().unwrap()];
    office.world.run(&args).exits(0);
    let bundle = Bundle::parse(&std::fs::read(file).unwrap()).unwrap();
    let mut said = None;
    for proven in &bundle.entries {
        let entry = Entry::from_bytes(proven.entry.as_bytes()).unwrap();
        match &entry.body {
            Body::DirectoryChange(change) if !change.active => said = Some(entry.at),
            Body::SessionClose(close) if close.session.to_string() == session => {
                return (entry.at.since(said.unwrap()), close.reason);
            }
            _ => {}
        }
    }
    panic!("the session's close is not in its bundle")
}

#[test]
fn one_word_over_scim_ends_grant_session_and_what_the_person_answers_for() {
    let office = Office::open(&["--suspend"]);
    let user = format!("/Users/{}", office.operator());
    office.world.add_provider(&Provider {
        name: "github",
        kind: "github",
        issuer: "https://jobs.example",
        audience: "ascribe",
        jwks: Some("https://jobs.example/keys"),
    });
    let rule = ["repository_id=74001", "environment=production"];
    office.world.add_workload("github", &rule);
    let orphaned = || office.world.json(&["workload", "list"]).line()["orphaned"].clone();
    assert_eq!(orphaned(), json!(false));
    let mut sleeper = office.world.sleeper();
    let ssh = sleeper.ssh.take().unwrap();
    let action = office
        .world
        .actions(&["--text", &sleeper.command])
        .remove(0);
    let session = action["session_id"].as_str().unwrap();
    let inactive = json!([{ "op": "replace", "value": { "active": false } }]);
    assert_eq!(office.patch(&user, inactive).0, 200);
    assert_ne!(ssh.wait(PATIENCE).code, Some(0));
    // As the record has it: when it was said, and when it had ended.
    let (took, reason) = after_the_directory(&office, session);
    assert!((0..=1000).contains(&took), "{took} ms");
    assert_eq!(reason, CloseReason::Revoked);
    // The grant, which had time left, admits nobody.
    assert_eq!(
        office.world.ssh(&office.world.place(), "id").code,
        Some(255)
    );
    assert_eq!(orphaned(), json!(true));
    let shown = office.world.run(&["workload", "list"]).exits(0).stdout;
    assert!(shown.contains("ORPHANED"), "{shown}");
    let active = json!([{ "op": "replace", "value": { "active": true } }]);
    assert_eq!(office.patch(&user, active).0, 200);
    assert_eq!(orphaned(), json!(false));
}

#[test]
fn a_resource_says_where_it_is_as_its_client_reaches_it() {
    let office = Office::open(&[]);
    let id = office.operator();
    let wanted = format!("{}/Users/{id}", office.base);
    let (_, one) = office.get(&format!("/Users/{id}"));
    assert_eq!(one["meta"]["location"], wanted.as_str(), "{one}");
    let (_, all) = office.get("/Users");
    assert_eq!(
        all["Resources"][0]["meta"]["location"],
        wanted.as_str(),
        "{all}"
    );
    // As a proxy that ends TLS says.
    let bearer = format!("Authorization: Bearer {}", office.token);
    let proxied = [
        "-H",
        "Host: gw.example.org",
        "-H",
        "X-Forwarded-Proto: https",
    ];
    let args = [&["-H", &bearer, &wanted][..], &proxied].concat();
    let (_, one) = office.curl(&args);
    let wanted = format!("https://gw.example.org/scim/v2/Users/{id}");
    assert_eq!(one["meta"]["location"], wanted.as_str(), "{one}");
}

#[test]
fn okta_looks_up_makes_replaces_and_pushes_groups() {
    let office = Office::open(&["--role", "Ops=auditor"]);
    // Before it makes a user, it looks for one.
    let (status, none) =
        office.get("/Users?filter=userName%20eq%20%22ada%40corp.example%22&startIndex=1&count=100");
    assert_eq!((status, &none["totalResults"]), (200, &json!(0)), "{none}");
    let id = office.operator();
    let (_, found) = office.get("/Users?filter=userName%20eq%20%22ADA%40corp.example%22");
    assert_eq!(found["Resources"][0]["id"], id.as_str(), "{found}");
    assert_eq!(found["Resources"][0]["name"]["familyName"], "Operator");
    let replaced = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": id,
        "userName": "ada.operator@corp.example",
        "externalId": "ada-1",
        "password": "never kept",
        "active": true,
        "groups": [],
    });
    let (status, shown) = office.put(&format!("/Users/{id}"), &replaced);
    assert_eq!(
        (status, &shown["userName"]),
        (200, &json!("ada.operator@corp.example")),
        "{shown}"
    );
    assert!(
        shown.get("password").is_none() && shown.get("name").is_none(),
        "{shown}"
    );
    // Group push.
    let group = json!({ "displayName": "Ops", "members": [{ "value": id, "display": "ada" }] });
    let (status, made) = office.post("/Groups", &group);
    assert_eq!(status, 201, "{made}");
    let path = format!("/Groups/{}", made["id"].as_str().unwrap());
    assert_eq!(made["members"][0]["value"], id.as_str());
    assert_eq!(
        office.person("operator")["roles"],
        json!(["requester", "auditor"])
    );
    let (_, shown) = office.get(&format!("/Users/{id}"));
    assert_eq!(shown["groups"][0]["display"], "Ops");
    let renamed =
        json!([{ "op": "replace", "value": { "id": made["id"], "displayName": "Others" } }]);
    assert_eq!(office.patch(&path, renamed).0, 200);
    assert_eq!(office.person("operator")["roles"], json!(["requester"]));
    let back = json!({ "displayName": "Ops", "members": [{ "value": id }] });
    assert_eq!(office.put(&path, &back).0, 200);
    assert_eq!(
        office.person("operator")["roles"],
        json!(["requester", "auditor"])
    );
    assert_eq!(office.delete(&path).0, 204);
    assert_eq!(office.person("operator")["roles"], json!(["requester"]));
    assert_eq!(office.get("/Groups").1["totalResults"], 0);
}

#[test]
fn entra_changes_members_one_by_one_and_a_restart_forgets_nothing() {
    let mut office = Office::open(&["--role", "Ops=auditor"]);
    let id = office.operator();
    let (_, found) = office.get("/Users?filter=externalId%20eq%20%22ada-1%22");
    assert_eq!(found["totalResults"], 1);
    let (status, made) = office.post(
        "/Groups",
        &json!({ "displayName": "Ops", "externalId": "g-1" }),
    );
    assert_eq!(status, 201, "{made}");
    let path = format!("/Groups/{}", made["id"].as_str().unwrap());
    let (_, listed) =
        office.get("/Groups?excludedAttributes=members&filter=displayName%20eq%20%22Ops%22");
    assert!(listed["Resources"][0].get("members").is_none(), "{listed}");
    let roles = |office: &Office| office.person("operator")["roles"].clone();
    let add = json!([{ "op": "Add", "path": "members", "value": [{ "value": id }] }]);
    let filtered = format!("members[value eq \"{id}\"]");
    for remove in [
        json!([{ "op": "Remove", "path": "members", "value": [{ "value": id }] }]),
        json!([{ "op": "remove", "path": filtered }]),
        json!([{ "op": "remove", "path": "members" }]),
    ] {
        assert_eq!(office.patch(&path, add.clone()).0, 200);
        assert_eq!(roles(&office), json!(["requester", "auditor"]));
        assert_eq!(office.patch(&path, remove).0, 200);
        assert_eq!(roles(&office), json!(["requester"]));
    }
    assert_eq!(office.patch(&path, add).0, 200);
    // An address and a part of an extension, which only such paths name.
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let more = json!([
        { "op": "Replace", "path": "emails[type eq \"work\"].value", "value": "new@corp.example" },
        { "op": "Add", "path": format!("{enterprise}:department"), "value": "Operations" },
        { "op": "Add", "value": { "displayName": "Ada", "name.givenName": "Ada M." } },
    ]);
    let user = format!("/Users/{id}");
    let (status, shown) = office.patch(&user, more);
    assert_eq!(
        (status, &shown["emails"][0]["value"]),
        (200, &json!("new@corp.example")),
        "{shown}"
    );
    assert_eq!(shown[enterprise]["department"], "Operations");
    assert_eq!(shown["name"]["givenName"], "Ada M.");
    // But for the port, which another start changes.
    let all = |office: &Office| {
        [&user, &path, "/Users", "/Groups"].map(|path| {
            let (status, shown) = office.get(path);
            (status, shown.to_string().replace(&office.base, ""))
        })
    };
    let before = all(&office);
    office.restart();
    assert_eq!(all(&office), before);
    assert_eq!(roles(&office), json!(["requester", "auditor"]));
    // A rule that is changed looks at groups as they are.
    let add = [
        "directory",
        "add",
        "corp",
        "--provider",
        "idp",
        "--role",
        "Ops=approver",
    ];
    office.world.run_as("approver", &add).exits(0);
    wait_for("new rule", PATIENCE, || {
        (roles(&office) == json!(["requester", "approver"])).then_some(())
    });
}

#[test]
fn a_manager_is_whom_the_enterprise_extension_names() {
    const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let office = Office::open(&[]);
    let world = &office.world;
    let approver = world.person("approver").0;
    let link = [
        "identity",
        "link",
        &approver,
        "--provider",
        "idp",
        "--subject",
        "boss-1",
    ];
    world.run_as("approver", &link).exits(0);
    world.change_target(&["--manager-approves"]);
    let user = format!("/Users/{}", office.operator());
    let boss = json!({ "userName": "boss@example.org", "externalId": "boss-1" });
    let (status, boss) = office.post("/Users", &boss);
    assert_eq!(status, 201, "{boss}");
    let place = world.place();
    let why = "a look at the stuck replica";
    let asks = |code| {
        world
            .run_as(
                "operator",
                &["request", &place, "--for", "30m", "--why", why],
            )
            .exits(code)
    };
    assert!(asks(2).stderr.contains("manager"));
    // As Okta and as Entra say it.
    let okta =
        json!({ "op": "replace", "value": { EXTENSION: { "manager": { "value": boss["id"] } } } });
    let entra = json!({ "op": "Add", "path": format!("{EXTENSION}:manager"), "value": boss["id"] });
    let none = json!({ "op": "Remove", "path": format!("{EXTENSION}:manager") });
    for named in [okta, entra] {
        let (status, shown) = office.patch(&user, json!([named]));
        assert_eq!(status, 200, "{shown}");
        let request = asks(0).line()["request_id"].as_str().unwrap().to_owned();
        world.approve(&request);
        assert_eq!(office.patch(&user, json!([none])).0, 200);
        asks(2);
    }
}

//! The documented sequences of Okta and Entra, and what they change.

use std::time::Duration;

use serde_json::json;

use super::office::{Office, holds};

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
        let ask = ["request", &place, "--why", "let me in all the same", "--ticket", "demo:OPS-42"];
        office.world.run_as("operator", &ask).exits(2);
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

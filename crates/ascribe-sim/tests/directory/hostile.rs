//! What a directory, or somebody who is none, must not get done.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::office::{Office, curl};
use super::world::{PATIENCE, wait_for};

fn kind((status, body): (u16, Value)) -> (u16, String) {
    (
        status,
        body["scimType"].as_str().unwrap_or_default().to_owned(),
    )
}

#[test]
fn nothing_is_said_without_the_token() {
    let office = Office::open(&["--suspend"]);
    let url = format!("{}/Users", office.base);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let good = bearer(&office.token);
    assert_eq!(office.curl(&[&url, "-H", &good]).0, 200);
    let wrong = bearer(&format!("{}x", office.token));
    let empty = bearer("");
    let basic = format!("Authorization: Basic {}", office.token);
    for header in [&wrong, &empty, &basic, "Authorization:"] {
        for place in ["/Users", "/ServiceProviderConfig", "/nothing", ""] {
            let (status, body) = office.curl(&[&format!("{}{place}", office.base), "-H", header]);
            assert_eq!(status, 401, "{header} {place}: {body}");
        }
    }
    assert_eq!(office.curl(&[&url, "-H", &good, "-H", &wrong]).0, 401);
    // The one before counts no longer, and a withdrawn directory has none.
    let drawn = office
        .world
        .run_as("approver", &["directory", "token", "corp"])
        .exits(0)
        .line();
    let next = bearer(drawn["result"]["token"].as_str().unwrap());
    assert_eq!(office.curl(&[&url, "-H", &good]).0, 401);
    assert_eq!(office.curl(&[&url, "-H", &next]).0, 200);
    office
        .world
        .run_as("approver", &["directory", "withdraw", "corp"])
        .exits(0);
    assert_eq!(office.curl(&[&url, "-H", &next]).0, 401);
}

#[test]
fn what_is_malformed_is_refused_in_scims_form() {
    let office = Office::open(&[]);
    let id = office.operator();
    let user = format!("/Users/{id}");
    let refused = |status, name: &str| (status, name.to_owned());
    for filter in [
        "userName%20co%20%22a%22",
        "userName%20eq%20%22a%22%20or%20id%20pr",
        "password%20eq%20%22a%22",
        "x",
    ] {
        let list = office.get(&format!("/Users?filter={filter}"));
        assert_eq!(kind(list), refused(400, "invalidFilter"), "{filter}");
    }
    let injected = "/Users?filter=userName%20eq%20%22a%5C%22%20or%20userName%20eq%20%5C%22ada%40corp.example%22";
    assert_eq!(office.get(injected).1["totalResults"], 0);
    for path in [
        "/users",
        "/Users/x",
        "/Users/x/y",
        "/Bulk",
        "/Me",
        "/Groups/r-00000000000000000000000000",
    ] {
        assert_eq!(office.get(path).0, 404, "{path}");
    }
    for (operation, expected) in [
        (json!([]), "invalidSyntax"),
        (json!([{ "op": "move" }]), "invalidSyntax"),
        (
            json!([{ "op": "replace", "path": "id", "value": "r-1" }]),
            "mutability",
        ),
        (
            json!([{ "op": "replace", "value": { "id": "r-1" } }]),
            "mutability",
        ),
        (
            json!([{ "op": "replace", "path": "externalId", "value": "bob-1" }]),
            "mutability",
        ),
        (
            json!([{ "op": "remove", "path": "externalId" }]),
            "mutability",
        ),
        (
            json!([{ "op": "replace", "path": "groups", "value": [] }]),
            "mutability",
        ),
        (json!([{ "op": "remove" }]), "noTarget"),
        (
            json!([{ "op": "remove", "path": "emails[type eq \"work\"" }]),
            "invalidPath",
        ),
        (
            json!([{ "op": "replace", "path": "active", "value": "maybe" }]),
            "invalidValue",
        ),
        (
            json!([{ "op": "replace", "path": "userName", "value": "a\u{202e}b" }]),
            "invalidValue",
        ),
        (
            json!([{ "op": "remove", "path": "userName" }]),
            "invalidValue",
        ),
    ] {
        assert_eq!(
            kind(office.patch(&user, operation.clone())),
            refused(400, expected),
            "{operation}"
        );
    }
    let stranger =
        json!({ "displayName": "Ops", "members": [{ "value": "r-00000000000000000000000000" }] });
    assert_eq!(
        kind(office.post("/Groups", &stranger)),
        refused(400, "invalidValue")
    );
    // None of that changed anything.
    assert_eq!(office.get(&user).1["userName"], "ada@corp.example");
    let admin = [
        "directory",
        "add",
        "other",
        "--provider",
        "idp",
        "--role",
        "Ops=admin",
    ];
    let out = office.world.run_as("approver", &admin).exits(2);
    assert!(
        out.stderr.contains("no directory makes administrators"),
        "{out:?}"
    );
}

#[test]
fn large_deep_and_slow_requests_are_cut_off() {
    let office = Office::open(&[]);
    let bearer = format!("Authorization: Bearer {}", office.token);
    let url = format!("{}/Users", office.base);
    let post = |body: &str| {
        let file = office.world.path("body");
        std::fs::write(&file, body).unwrap();
        let data = format!("@{}", file.display());
        let (_, status) = curl(&[&url, "-H", &bearer, "-H", "Expect:", "--data-binary", &data])
            .rsplit_once('\n')
            .map(|(body, status)| (body.to_owned(), status.to_owned()))
            .unwrap();
        status
    };
    assert_eq!(
        post(&format!("{{\"userName\":\"{}\"}}", "a".repeat(300 * 1024))),
        "413"
    );
    let deep = format!(
        "{{\"userName\":\"a\",\"x\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(post(&deep), "400");
    let edge = format!(
        "{{\"userName\":\"b\",\"x\":{}1{}}}",
        "[".repeat(120),
        "]".repeat(120)
    );
    assert!(["201", "400", "413"].contains(&post(&edge).as_str()));
    assert_eq!(post("{\"userName\":\"a\",\"USERNAME\":\"b\"}"), "400");
    assert_eq!(post("[]"), "400");
    assert_eq!(post("\u{0}"), "400");
    // Who never ends a request is cut off, and meanwhile others are served.
    let place = office
        .base
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap();
    let mut slow = TcpStream::connect(place).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let head = format!(
        "POST /scim/v2/Users HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).unwrap();
    assert_eq!(post("{\"userName\":\"c\"}"), "201");
    let mut said = Vec::new();
    slow.read_to_end(&mut said).unwrap();
    assert!(
        String::from_utf8_lossy(&said).starts_with("HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn of_two_who_take_one_name_at_once_one_is_refused() {
    let office = Office::open(&[]);
    for nth in 0..4 {
        let post = |name: String| office.post("/Users", &json!({ "userName": name })).0;
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| post(format!("Zo\u{eb}{nth}@corp.example")));
            let other = scope.spawn(|| post(format!("ZO\u{cb}{nth}@CORP.example")));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!((one.min(other), one.max(other)), (201, 409));
    }
    assert_eq!(office.get("/Users").1["totalResults"], 4);
}

#[test]
fn what_is_refused_is_on_record_however_often_in_few_entries() {
    let mut office = Office::open(&["--suspend"]);
    let id = office.operator();
    let wrong = format!("Authorization: Bearer {}x", office.token);
    let url = format!("{}/Users", office.base);
    for _ in 0..40 {
        assert_eq!(office.curl(&[&url, "-H", &wrong]).0, 401);
    }
    // Rights that no rule gives, a name that another has, a subject that changes, what is not there.
    let twice = json!({ "userName": "ADA@corp.example" });
    assert_eq!(office.post("/Users", &twice).0, 409);
    let other = json!([{ "op": "replace", "path": "externalId", "value": "bob-1" }]);
    assert_eq!(office.patch(&format!("/Users/{id}"), other).0, 400);
    let stranger =
        json!({ "displayName": "Ops", "members": [{ "value": "r-00000000000000000000000000" }] });
    for _ in 0..5 {
        assert_eq!(office.post("/Groups", &stranger).0, 400);
        assert_eq!(office.get("/Users/x").0, 404);
    }
    let data = office.world.data();
    let entries = || {
        let kind = b"{\"directory.refusal\":";
        let files = super::world::snapshot(&data.join("segments")).into_values();
        let found = files.map(|(_, bytes)| bytes.windows(kind.len()).filter(|w| w == kind).count());
        found.sum::<usize>()
    };
    // Each was answered, and some are on record within seconds.
    wait_for("an entry", PATIENCE, || (entries() > 0).then_some(()));
    let report = office.stopped();
    let notes = report["notes"].as_array().unwrap();
    let notes = notes.iter().filter(|n| n["code"] == "directory_refused");
    let said: Vec<&str> = notes.map(|n| n["message"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "40 request(s) over SCIM without a directory's token were refused",
            "12 request(s) over SCIM with the token of directory `corp` were refused",
        ]
    );
    // Of each of the two at once, and at the stop.
    assert!((2..=4).contains(&entries()), "{}", entries());
}

#[test]
fn what_a_client_that_hung_up_had_done_is_kept_as_it_is_recorded() {
    let office = Office::open(&["--suspend"]);
    let id = office.operator();
    let user = format!("/Users/{id}");
    let address = office.base.strip_prefix("http://").unwrap();
    let (host, base) = address.split_once('/').unwrap();
    for nth in 0..24 {
        let active = nth % 2 == 1;
        let body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{ "op": "replace", "value": { "active": active } }],
        })
        .to_string();
        let request = format!(
            "PATCH /{base}{user} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            office.token,
            body.len()
        );
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(nth * 150));
        drop(stream);
        wait_for("the same word in both places", PATIENCE, || {
            let kept = office.get(&user).1["active"].as_bool().unwrap();
            (kept != office.is_suspended()).then_some(())
        });
    }
}

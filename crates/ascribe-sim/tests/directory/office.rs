//! A demo whose server serves a directory, and that directory.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::providers::Provider;
use super::world::{PATIENCE, Running, World, end, need, wait_for};

const ISSUER: &str = "https://idp.example";

/// A directory with its token, against a running server.
pub(super) struct Office {
    pub(super) world: World,
    server: Option<Running>,
    pub(super) base: String,
    pub(super) token: String,
}

impl Office {
    /// The operator is linked as `ada-1`, the requester's role comes from nobody but enrolment.
    pub(super) fn open(options: &[&str]) -> Self {
        let mut world = World::new();
        world.stop();
        world.start_target();
        let (server, base) = serve(&mut world);
        world.add_provider(&Provider {
            name: "idp",
            kind: "oidc",
            issuer: ISSUER,
            audience: "ascribe",
            jwks: Some("https://idp.example/keys"),
        });
        world.link_operator("ada-1");
        let add = ["directory", "add", "corp", "--provider", "idp"];
        let made = world
            .run_as("approver", &[&add[..], options].concat())
            .exits(0)
            .line();
        let token = made["result"]["token"].as_str().unwrap().to_owned();
        Self {
            world,
            server: Some(server),
            base,
            token,
        }
    }

    pub(super) fn restart(&mut self) {
        end(self.server.take().unwrap());
        let (server, base) = serve(&mut self.world);
        (self.server, self.base) = (Some(server), base);
    }

    /// Stops the server. What `ascribe verify` reports of the whole ledger.
    pub(super) fn stopped(&mut self) -> Value {
        end(self.server.take().unwrap());
        let (data, policy) = (self.world.data(), self.world.policy());
        self.world.verify(&data, &policy).exits(0).line()
    }

    /// What `curl` gets: status and body.
    pub(super) fn curl(&self, args: &[&str]) -> (u16, Value) {
        let out = curl(args);
        let (body, status) = out.rsplit_once('\n').unwrap();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(body).unwrap()
        };
        (status.parse().unwrap(), body)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let bearer = format!("Authorization: Bearer {}", self.token);
        let url = format!("{}{path}", self.base);
        let body = body.map(Value::to_string);
        let mut args = vec!["-X", method, "-H", &bearer, &url];
        if let Some(body) = &body {
            args.extend([
                "-H",
                "Content-Type: application/scim+json",
                "--data-binary",
                body,
            ]);
        }
        self.curl(&args)
    }

    pub(super) fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }
    pub(super) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, Some(body))
    }
    pub(super) fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, Some(body))
    }
    pub(super) fn patch(&self, path: &str, operations: Value) -> (u16, Value) {
        let schemas = ["urn:ietf:params:scim:api:messages:2.0:PatchOp"];
        self.call(
            "PATCH",
            path,
            Some(&json!({ "schemas": schemas, "Operations": operations })),
        )
    }
    pub(super) fn delete(&self, path: &str) -> (u16, Value) {
        self.call("DELETE", path, None)
    }

    /// Provisions the operator. Returns the id.
    pub(super) fn operator(&self) -> String {
        let user = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": "ada@corp.example",
            "externalId": "ada-1",
            "name": { "givenName": "Ada", "familyName": "Operator" },
            "emails": [{ "primary": true, "value": "ada@corp.example", "type": "work" }],
            "active": true,
        });
        let (status, made) = self.post("/Users", &user);
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    /// The row of a person in the list.
    pub(super) fn person(&self, role: &str) -> Value {
        let id = self.world.person(role).0;
        let people = self
            .world
            .run_as("approver", &["person", "list"])
            .exits(0)
            .lines();
        people
            .into_iter()
            .find(|row| row["id"] == id.as_str())
            .unwrap()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.person("operator")["suspended"].is_object()
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        drop(self.server.take());
    }
}

/// `curl`'s output, and the status in a last line.
pub(super) fn curl(args: &[&str]) -> String {
    let mut command = Command::new(need("curl"));
    command
        .args(["-sS", "--noproxy", "*", "-w", "\n%{http_code}"])
        .args(args)
        .stdin(Stdio::null());
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

fn serve(world: &mut World) -> (Running, String) {
    let server = world.serve_with(&["--scim", "127.0.0.1:0"]);
    let base = wait_for("scim", PATIENCE, || {
        let said = server.stderr();
        let line = said.lines().find(|line| line.starts_with("scim "))?;
        Some(line.trim_start_matches("scim ").to_owned())
    });
    (server, base)
}

/// Every file below the ledger's directory: is this text anywhere in the clear?
pub(super) fn holds(dir: &Path, text: &str) -> bool {
    let mut found = false;
    for (_, (_, bytes)) in super::world::snapshot(dir) {
        found |= bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes());
    }
    found
}

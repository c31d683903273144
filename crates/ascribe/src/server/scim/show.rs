//! What is answered: resources, lists, and what this service can do (RFC 7643, 5 to 7).

use ascribe_core::directory::ResourceKind;
use ascribe_core::id::ResourceId;
use serde_json::{Value, json};

use super::BASE;
use super::patch::Body;
use super::store::{Kept, Shelf};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

pub(super) fn place(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Group => "Groups",
        ResourceKind::User => "Users",
    }
}

/// One resource, without the attributes that are not wanted.
pub(super) fn resource(shelf: &Shelf, id: ResourceId, kept: &Kept, without: &[String]) -> Value {
    let mut shown: Body = kept.body.clone();
    let (schema, name) = match kept.kind {
        ResourceKind::Group => (GROUP, "Group"),
        ResourceKind::User => (USER, "User"),
    };
    let mut schemas = vec![schema.to_owned()];
    schemas.extend(shown.keys().filter(|key| key.starts_with("urn:")).cloned());
    match kept.kind {
        ResourceKind::Group => {
            let members = kept
                .members
                .iter()
                .filter_map(|id| Some((id, shelf.0.get(id)?)));
            let members =
                members.map(|(id, user)| json!({ "value": id, "display": user.text("userName") }));
            shown.insert("members".to_owned(), members.collect());
        }
        ResourceKind::User => {
            shown.entry("active").or_insert(Value::Bool(true));
            let groups = shelf.groups_of(id);
            let groups = groups
                .map(|(id, group)| json!({ "value": id, "display": group.text("displayName") }));
            shown.insert("groups".to_owned(), groups.collect());
        }
    }
    shown.retain(|key, _| !without.iter().any(|name| name.eq_ignore_ascii_case(key)));
    shown.insert("schemas".to_owned(), json!(schemas));
    shown.insert("id".to_owned(), json!(id));
    let meta = json!({
        "resourceType": name,
        "created": kept.created,
        "lastModified": kept.changed,
        "location": location(kept.kind, id),
    });
    shown.insert("meta".to_owned(), meta);
    Value::Object(shown)
}

pub(super) fn location(kind: ResourceKind, id: ResourceId) -> String {
    format!("{BASE}/{}/{id}", place(kind))
}

pub(super) fn list(total: usize, start: usize, resources: Vec<Value>) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}

pub(super) fn config(max_results: usize) -> Value {
    let no = json!({ "supported": false });
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": max_results },
        "changePassword": no, "sort": no, "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "The directory's own token, as `ascribe directory add` printed it",
        }],
    })
}

pub(super) fn types() -> Value {
    let one = |name: &str, schema: &str| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name, "name": name, "endpoint": format!("/{name}s"), "schema": schema,
        })
    };
    list(2, 1, vec![one("User", USER), one("Group", GROUP)])
}

pub(super) fn schemas() -> Value {
    let text = |name: &str, required: bool, uniqueness: &str| {
        json!({
            "name": name, "type": "string", "multiValued": false, "required": required, "caseExact": false,
            "mutability": "readWrite", "returned": "default", "uniqueness": uniqueness,
        })
    };
    let mut external = text("externalId", false, "server");
    if let Some(external) = external.as_object_mut() {
        external.insert("mutability".to_owned(), json!("immutable"));
        external.insert("caseExact".to_owned(), json!(true));
    }
    let active = json!({
        "name": "active", "type": "boolean", "multiValued": false, "required": false, "mutability": "readWrite",
        "returned": "default",
    });
    let members = json!({
        "name": "members", "type": "complex", "multiValued": true, "required": false, "mutability": "readWrite",
        "returned": "default", "subAttributes": [text("value", true, "none")],
    });
    let one = |id: &str, name: &str, attributes: Vec<Value>| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": id, "name": name, "attributes": attributes,
        })
    };
    let user = vec![text("userName", true, "server"), external, active];
    let group = vec![text("displayName", true, "server"), members];
    list(
        2,
        1,
        vec![one(USER, "User", user), one(GROUP, "Group", group)],
    )
}

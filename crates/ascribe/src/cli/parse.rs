//! How values are written on the command line.

use ascribe_core::directory::{DirectoryGroup, GroupRole};
use ascribe_core::identity::ProviderKind;
use ascribe_core::statement::{
    Anywhere, Destination, Forward, Listen, OverCap, Role, SocketPath, Verdict,
};
use ascribe_core::witness::Demand;
use ascribe_gateway::OauthPlace;
use ascribe_sql::Class;

/// `90`, `90s`, `15m`, `8h`, `3d` in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no duration; write for instance `90s`, `15m`, `8h` or `3d`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number
        .checked_mul(factor)
        .filter(|s| *s > 0 && *s < 1 << 40)
        .ok_or_else(bad)
}

/// `[ROLE@]TARGET=PROVIDER[:SCOPE]`.
pub(crate) fn oauth_place(text: &str) -> Result<OauthPlace, String> {
    let form = "write `[ROLE@]TARGET=PROVIDER` or `[ROLE@]TARGET=PROVIDER:SCOPE`";
    let (place, provider) = text.split_once('=').ok_or(form)?;
    let (role, target) = match place.rsplit_once('@') {
        Some((role, target)) => (Some(role), target),
        None => (None, place),
    };
    let (provider, scope) = match provider.split_once(':') {
        Some((provider, scope)) => (provider, Some(scope)),
        None => (provider, None),
    };
    if [Some(target), Some(provider), role, scope].contains(&Some("")) {
        return Err(form.to_owned());
    }
    // RFC 6749, 3.3.
    let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
    if !scope.unwrap_or_default().chars().all(allowed) {
        return Err(
            "a scope has visible characters of ASCII, no quotes and no backslashes".to_owned(),
        );
    }
    Ok(OauthPlace {
        role: role.map(str::to_owned),
        target: target.to_owned(),
        provider: provider.to_owned(),
        scope: scope.map(str::to_owned),
    })
}

/// A class of statements.
pub(crate) fn class(text: &str) -> Result<String, String> {
    let known = Class::ALL.map(Class::as_str);
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no class of statements; classes are {}",
        known.join(", ")
    ))
}

/// A commit, or how it begins.
pub(crate) fn commit(text: &str) -> Result<String, String> {
    if text.chars().count() < 7 {
        return Err("a commit is named by its first seven letters at least".to_owned());
    }
    Ok(text.to_owned())
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// A program with its arguments in one text, quoted as for a shell. No shell reads it: `$` and the like stand
/// for themselves.
pub(crate) fn words(text: &str) -> Result<Words, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                // Between double quotes it only quotes what would mean something there.
                let quotes =
                    |next: &char| quote.is_none() || matches!(next, '"' | '\\' | '$' | '`');
                let next = rest.next_if(quotes);
                if quote.is_none() && next.is_none() {
                    return Err("the command ends with a backslash".to_owned());
                }
                word.get_or_insert_default().push(next.unwrap_or(c));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote in the command is not closed".to_owned());
    }
    words.extend(word);
    match words.first().is_some_and(|name| !name.is_empty()) {
        true => Ok(Words(words)),
        false => Err("the command names no program".to_owned()),
    }
}

pub(crate) fn directory_group(text: &str) -> Result<DirectoryGroup, String> {
    let (directory, group) = text.split_once(':').ok_or("write `DIRECTORY:GROUP`")?;
    Ok(DirectoryGroup {
        directory: directory.to_owned(),
        group: group.to_owned(),
    })
}

pub(crate) fn group_role(text: &str) -> Result<GroupRole, String> {
    let (group, name) = text.rsplit_once('=').ok_or("write `GROUP=ROLE`")?;
    Ok(GroupRole {
        group: group.to_owned(),
        role: role(name)?,
    })
}

pub(crate) fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no role; roles are requester, approver, auditor, admin"))
}

pub(crate) fn demand(text: &str) -> Result<Demand, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| {
        format!("`{text}` is no demand; demands are break-glass, keys, people, policy")
    })
}

/// The word that stands for a demand.
pub(crate) fn word_of(demand: &Demand) -> String {
    let word = serde_json::to_value(demand).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn verdict(text: &str) -> Result<Verdict, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is neither `justified` nor `unjustified`"))
}

/// A forwarding as people write it.
pub(crate) fn forward(text: &str) -> Result<Forward, String> {
    let bad = || {
        format!(
            "`{text}` is no forwarding; write `local:HOST:PORT`, `local:NAME=ADDRESS:PORT`, `dynamic`, \
             `socket:/PATH`, `remote:PORT`, `remote-socket:/PATH`, `agent` or `x11`"
        )
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let path = || SocketPath {
        path: rest.to_owned(),
    };
    let forward = match (kind, rest.is_empty()) {
        ("dynamic", true) => Forward::Dynamic(Anywhere {}),
        ("agent", true) => Forward::Agent(Anywhere {}),
        ("x11", true) => Forward::X11(Anywhere {}),
        ("socket", false) => Forward::Socket(path()),
        ("remote-socket", false) => Forward::RemoteSocket(path()),
        ("remote", false) => Forward::Remote(Listen {
            port: rest.parse().map_err(|_| bad())?,
        }),
        ("local", false) => {
            let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
            let (host, address) = match host.split_once('=') {
                Some((name, address)) => (name.to_owned(), Some(bare(address))),
                None => (bare(host), None),
            };
            Forward::Local(Destination {
                host,
                port,
                address,
            })
        }
        _ => return Err(bad()),
    };
    Ok(forward)
}

pub(crate) fn provider_kind(text: &str) -> Result<ProviderKind, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no kind of provider; see `ascribe provider add --help`"))
}

pub(crate) fn claim(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` names no value; write CLAIM=VALUE"))?;
    Ok((claim.to_owned(), value.to_owned()))
}

pub(crate) fn over_cap(text: &str) -> Result<OverCap, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is neither `digest` nor `refuse`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_entered_by_oauthbearer() {
        let place = |role: Option<&str>, scope: Option<&str>| {
            Ok(OauthPlace {
                role: role.map(str::to_owned),
                target: "orders-db".to_owned(),
                provider: "k8s".to_owned(),
                scope: scope.map(str::to_owned),
            })
        };
        assert_eq!(oauth_place("orders-db=k8s"), place(None, None));
        let all = oauth_place("dba@orders-db=k8s:openid urn:db=1");
        assert_eq!(all, place(Some("dba"), Some("openid urn:db=1")));
        for bad in [
            "",
            "=",
            "orders-db",
            "orders-db=",
            "=k8s",
            "@orders-db=k8s",
            "dba@=k8s",
            "orders-db=k8s:",
            "orders-db=:openid",
            "orders-db=k8s:a\"b",
            "orders-db=k8s:a\\b",
            "orders-db=k8s:\u{e9}",
        ] {
            assert!(oauth_place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn forwardings() {
        for good in [
            "dynamic",
            "agent",
            "x11",
            "socket:/run/x",
            "remote:0",
            "local:10.0.0.9:80",
            "local:[2001:db8::1]:80",
            "local:db=10.0.0.9:80",
        ] {
            assert!(forward(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "local",
            "local:80",
            "local:db:x",
            "local:db:70000",
            "agent:1",
            "remote:",
            "tun",
        ] {
            assert!(forward(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_in_one_text() {
        let cut = |text: &str| words(text).map(|words| words.0);
        let is = |text: &str, wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            assert_eq!(cut(text), Ok(wanted), "{text}");
        };
        is("printenv  TOKEN ", &["printenv", "TOKEN"]);
        is(r#"sh -c 'echo "$A" \\'"#, &["sh", "-c", r#"echo "$A" \\"#]);
        is(
            r#"a "b \"c\" \d" e\ f """#,
            &["a", r#"b "c" \d"#, "e f", ""],
        );
        for bad in ["", " ", "a 'b", "a \"b", "a \\", "'' a"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn classes_are_known_ones() {
        for class_of in Class::ALL {
            assert_eq!(class(class_of.as_str()), Ok(class_of.as_str().to_owned()));
        }
        let said = class("slect").unwrap_err();
        assert!(said.contains("classes are select, insert"), "{said}");
    }

    #[test]
    fn durations() {
        assert_eq!(
            (seconds("90"), seconds("8h"), seconds("3d")),
            (Ok(90), Ok(28_800), Ok(259_200))
        );
        for bad in ["", "h", "0", "-1h", "1w", "99999999999999999999", "1h1h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

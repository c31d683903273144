//! The SSH user name at the gateway's door: `account@target` or `account+GRANT@target`.

use ascribe_core::id::GrantId;
use ascribe_core::text::is_unsafe;

/// Longest user name, in bytes.
pub const MAX_USER: usize = 255;

/// A parsed user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Account on the target.
    pub account: String,
    /// Target name.
    pub target: String,
    /// The grant that is meant, where one is named.
    pub grant: Option<GrantId>,
}

/// Why a user name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Empty or too long.
    #[error("the user name is empty or longer than 255 bytes")]
    Length,
    /// Control, invisible or direction characters, or white space.
    #[error("the user name has characters that are not allowed")]
    Character,
    /// No `@`, an empty part, or `..`.
    #[error("the user name is not ACCOUNT@TARGET")]
    Form,
    /// What follows `+` is not a grant.
    #[error("what follows `+` is not a grant id")]
    Grant,
}

/// Parses a user name. The last `@` separates account and target.
///
/// # Errors
/// When it is not of that form.
pub fn parse(text: &str) -> Result<User, UserError> {
    if text.is_empty() || text.len() > MAX_USER {
        return Err(UserError::Length);
    }
    if text.chars().any(|c| is_unsafe(c) || c.is_whitespace()) {
        return Err(UserError::Character);
    }
    let (left, target) = text.rsplit_once('@').ok_or(UserError::Form)?;
    let (account, grant) = match left.rsplit_once('+') {
        Some((account, grant)) => {
            let grant = grant.parse().map_err(|_| UserError::Grant)?;
            (account, Some(grant))
        }
        None => (left, None),
    };
    if account.is_empty() || target.is_empty() || text.contains("..") {
        return Err(UserError::Form);
    }
    Ok(User {
        account: account.to_owned(),
        target: target.to_owned(),
        grant,
    })
}

/// Is this the login of somebody who only wants to go on from here (`ssh -J`)? OpenSSH gives the
/// name that the person has at home, which says nothing.
pub fn is_jump(text: &str) -> bool {
    (1..=MAX_USER).contains(&text.len())
        && !text.contains("..")
        && !text
            .chars()
            .any(|c| c == '@' || is_unsafe(c) || c.is_whitespace())
}

/// Parses a user name at a door that leads to one target: `account` or `account+GRANT`.
///
/// # Errors
/// When it is not of that form.
pub fn parse_at(text: &str, target: &str) -> Result<User, UserError> {
    if text.contains('@') {
        return Err(UserError::Form);
    }
    parse(&format!("{text}@{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let user = parse("root@db1").unwrap();
        assert_eq!(
            (user.account.as_str(), user.target.as_str()),
            ("root", "db1")
        );
        let id = GrantId::new([3; 16]);
        assert_eq!(parse(&format!("a@b+{id}@t")).unwrap().grant, Some(id));
        assert_eq!(parse("a@b@t").unwrap().account, "a@b");
        for bad in [
            "",
            "root",
            "@t",
            "a@",
            "a+x@t",
            "a..b@t",
            "a\n@t",
            "a b@t",
            "a\u{202e}@t",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            parse(&format!("{}@t", "a".repeat(254))),
            Err(UserError::Length)
        );
    }

    #[test]
    fn a_plain_name_jumps_and_at_the_inner_door_it_is_the_account() {
        assert!(is_jump("olu") && is_jump("a+b"));
        for no in ["", "root@db1", "a b", "a\u{202e}", "a..b", &"a".repeat(256)] {
            assert!(!is_jump(no), "{no:?}");
        }
        let id = GrantId::new([3; 16]);
        let user = parse_at(&format!("root+{id}"), "db1").unwrap();
        assert_eq!(
            (user.account.as_str(), user.target.as_str()),
            ("root", "db1")
        );
        assert_eq!(user.grant, Some(id));
        for no in ["", "root@db2", "root+x", "+", &"a".repeat(252)] {
            assert!(parse_at(no, "db1").is_err(), "{no:?}");
        }
    }

    #[test]
    fn a_name_is_taken_up_to_the_limit_and_not_beyond() {
        let name = |account: usize| format!("{}@t", "a".repeat(account));
        assert_eq!(parse(&name(253)).unwrap().account.len(), 253);
        assert_eq!(parse(&name(254)), Err(UserError::Length));
        // Bytes count, not characters.
        let wide = format!("{}@t", "\u{e9}".repeat(127));
        assert_eq!(parse(&wide), Err(UserError::Length));
    }

    #[test]
    fn invisible_and_control_characters_are_refused_everywhere() {
        for c in [
            '\0', '\u{1}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{a0}', '\u{200b}',
            '\u{200d}', '\u{200e}', '\u{202e}', '\u{2028}', '\u{2066}', '\u{feff}',
        ] {
            for name in [
                format!("{c}root@t"),
                format!("ro{c}ot@t"),
                format!("root@t{c}"),
            ] {
                assert_eq!(parse(&name), Err(UserError::Character), "{name:?}");
            }
        }
    }

    #[test]
    fn the_last_at_separates_and_a_grant_has_one_spelling() {
        let id = GrantId::new([0xab; 16]).to_string();
        let user = parse(&format!("root@a+{id}@b")).unwrap();
        assert_eq!(
            (user.account.as_str(), user.target.as_str()),
            ("root@a", "b")
        );
        let upper = id.to_uppercase();
        for (name, error) in [
            (format!("root+{id}@b@c"), UserError::Grant),
            (format!("root+{upper}@b"), UserError::Grant),
            (format!("root+{id}x@b"), UserError::Grant),
            ("root+@b".to_owned(), UserError::Grant),
            (format!("+{id}@b"), UserError::Form),
            (format!("root+{id}@"), UserError::Form),
        ] {
            assert_eq!(parse(&name), Err(error), "{name}");
        }
        // After the target it names no grant, but a target that cannot be.
        let user = parse(&format!("root@b+{id}")).unwrap();
        assert_eq!((user.target, user.grant), (format!("b+{id}"), None));
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(text in ".{0,300}") {
            if let Ok(user) = parse(&text) {
                let grant = user.grant.map(|g| format!("+{g}")).unwrap_or_default();
                prop_assert_eq!(format!("{}{}@{}", user.account, grant, user.target), text);
            }
        }
    }
}

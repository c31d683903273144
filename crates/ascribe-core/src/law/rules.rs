//! Rules that look at one thing alone: names, windows, tickets, prose.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Denied;
use crate::sealed::Prose;
use crate::statement::{
    Forward, Recurrence, Request, SshKey, Target, Ticket, TicketRule, Uses, Window,
};
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Key types that may be enrolled.
const KEY_TYPES: [&str; 2] = ["ssh-ed25519", "ecdsa-sha2-nistp256"];
/// Longest window a target may allow: 90 days, in seconds.
const MAX_WINDOW_SECONDS: u64 = 90 * 24 * 3600;
/// Most windows of one request.
const MAX_WINDOWS: usize = 128;

pub(super) fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b))
        && !text.contains("..")
}

fn is_account(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && !text.contains("..")
        && text
            .chars()
            .all(|c| !c.is_whitespace() && !is_unsafe(c) && !"@+:/\\$`'\"".contains(c))
}

/// A key that a person is enrolled with.
pub(super) fn check_persons_key(key: &SshKey) -> Result<(), Denied> {
    let said = key.0.split(' ').next();
    if key.is_security_key() && said == key.kind().as_deref() && key.0.split(' ').count() == 2 {
        return Ok(());
    }
    check_key(key)
}

pub(super) fn check_key(key: &SshKey) -> Result<(), Denied> {
    let mut parts = key.0.split(' ');
    let kind = parts.next().unwrap_or_default();
    let blob = parts.next().and_then(crate::encoding::from_base64_std);
    if parts.next().is_some() || blob.is_none_or(|blob| blob.len() < 32) {
        return Err(Denied::new(
            "key",
            "a key is written `type base64`, without comment",
        ));
    }
    if kind.starts_with("sk-") {
        Err(Denied::new(
            "key-type",
            "security keys are people's: nobody touches one for a login, an agent or an authority",
        )
        .with_help("use an Ed25519 or ECDSA P-256 key: `ssh-keygen -t ed25519`"))
    } else if KEY_TYPES.contains(&kind) {
        Ok(())
    } else {
        Err(Denied::new(
            "key-type",
            format!(
                "keys of type `{}` are not enrolled",
                crate::text::clean(kind, 40)
            ),
        )
        .with_help("use an Ed25519 or ECDSA P-256 key: `ssh-keygen -t ed25519`"))
    }
}

pub(super) fn check_target(target: &Target) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("target", text));
    if !is_name(&target.name) {
        return refuse("a target's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`");
    }
    if target.host.is_empty()
        || target.host.len() > 253
        || target
            .host
            .chars()
            .any(|c| c.is_whitespace() || is_unsafe(c))
    {
        return refuse("a target's host is a host name or an address");
    }
    check_addresses(target)?;
    if target.port == 0 {
        return refuse("a target has a port");
    }
    match &target.postgres {
        Some(postgres) => super::databases::check_postgres(target, postgres)?,
        None if !(1..=16).contains(&target.host_keys.len()) => {
            return refuse("a target has one to sixteen pinned host keys");
        }
        None => {}
    }
    if target.accounts.is_empty()
        || target.accounts.len() > 256
        || !target.accounts.iter().all(|a| is_account(a))
    {
        return refuse("a target has accounts, without spaces and shell characters");
    }
    if target.quorum == 0
        || target.quorum > 16
        || target.required_approvers.len() > target.quorum as usize
    {
        return refuse("a target's quorum is 1 to 16 and covers its required approvers");
    }
    if target.max_seconds == 0 || target.max_seconds > MAX_WINDOW_SECONDS {
        return refuse("a target's longest window is 1 second to 90 days");
    }
    if target.min_justification < 10 || target.min_justification > 1000 {
        return refuse("a target's least justification is 10 to 1000 characters");
    }
    if target.review_seconds == 0 || target.review_seconds > MAX_WINDOW_SECONDS {
        return refuse("a break-glass review is due within 1 second to 90 days");
    }
    let waits = target.max_unwitnessed_seconds;
    if waits.is_some_and(|most| !(5..=MAX_WINDOW_SECONDS).contains(&most)) {
        return refuse("witnesses may be away for 5 seconds to 90 days");
    }
    match &target.ticket {
        Some(rule) if !is_text(&rule.system) || !is_text(&rule.pattern) => {
            refuse("a ticket rule names a system and a pattern")
        }
        Some(_) | None => Ok(()),
    }
}

fn is_text(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || is_unsafe(c))
}

/// A target is reached at pinned addresses. Some are never a target's: they lead to the gateway's own
/// machine or to what serves secrets to it.
fn check_addresses(target: &Target) -> Result<(), Denied> {
    let refuse = |text: String| Err(Denied::new("address", text));
    if target.addresses.is_empty() || target.addresses.len() > 16 {
        return refuse("a target has one to sixteen pinned addresses".to_owned());
    }
    let host = target.host.parse::<IpAddr>();
    for text in &target.addresses {
        let shown = crate::text::clean(text, 64);
        let address = match text.parse::<IpAddr>() {
            Ok(address) if address.to_string() == *text => address,
            Ok(_) | Err(_) => {
                return refuse(format!("`{shown}` is no address in its shortest form"));
            }
        };
        if host.as_ref().is_ok_and(|host| *host != address) {
            return refuse(format!(
                "the target's host is another address than `{shown}`"
            ));
        }
        match place_of(address) {
            Place::Elsewhere => {}
            Place::Loopback if target.loopback => {}
            Place::Loopback => {
                return Err(Denied::new(
                    "address",
                    format!("`{shown}` is the gateway's own machine"),
                )
                .with_help("if it is meant, register the target with `--allow-loopback`"));
            }
            Place::Never => {
                return refuse(format!("`{shown}` is no address of a target"));
            }
        }
    }
    Ok(())
}

enum Place {
    Elsewhere,
    Loopback,
    Never,
}

/// Where an address leads, however it is wrapped (RFC 4291 mapped, RFC 6052 NAT64, RFC 3056 6to4).
fn place_of(address: IpAddr) -> Place {
    let v6 = match address.to_canonical() {
        IpAddr::V4(v4) => return place_of_v4(v4),
        IpAddr::V6(v6) => v6,
    };
    let inside = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some((high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = inside {
        return place_of_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    // Behind a translator's local prefix (RFC 8215) is any address at all.
    let translated = matches!(v6.segments(), [0x64, 0xff9b, 1, ..]);
    if v6.is_loopback() {
        Place::Loopback
    } else if v6.is_unspecified()
        || v6.is_multicast()
        || v6.is_unicast_link_local()
        || translated
        || METADATA_V6.contains(&v6)
    {
        Place::Never
    } else {
        Place::Elsewhere
    }
}

/// Metadata services of clouds that are not at a link-local address, as their documentation has them.
const METADATA_V4: [Ipv4Addr; 2] = [
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer.
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 3] = [
    // AWS.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle Cloud.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

fn place_of_v4(v4: Ipv4Addr) -> Place {
    let [first, ..] = v4.octets();
    if v4.is_loopback() {
        Place::Loopback
    } else if first == 0
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_link_local()
        || first >= 240
        || METADATA_V4.contains(&v4)
    {
        Place::Never
    } else {
        Place::Elsewhere
    }
}

/// Most forwardings of one grant.
const MAX_FORWARDS: usize = 64;

pub(super) fn check_forwards(forwards: &[Forward]) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("forward", text));
    if forwards.len() > MAX_FORWARDS {
        return refuse("a grant allows at most 64 forwardings");
    }
    let plain = |text: &str| !text.chars().any(|c| c.is_whitespace() || is_unsafe(c));
    for forward in forwards {
        match forward {
            Forward::Local(to) => {
                if to.host.is_empty() || to.host.len() > 253 || !plain(&to.host) || to.port == 0 {
                    return refuse("a forwarding goes to a host name or address and a port");
                }
                let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
                let pinned = match &to.address {
                    Some(address) => is_address(address) && !is_address(&to.host),
                    None => is_address(&to.host),
                };
                if !pinned {
                    return Err(
                        Denied::new("forward", "a forwarding's host name has no address")
                            .with_help("give both: `--forward local:NAME=ADDRESS:PORT`"),
                    );
                }
            }
            Forward::Socket(to) | Forward::RemoteSocket(to) => {
                let fits = to.path.len() <= 108 && to.path.starts_with('/');
                if !fits || !plain(&to.path) || to.path.contains("/../") {
                    return refuse("a forwarded socket is an absolute path of at most 108 bytes");
                }
            }
            Forward::Dynamic(_) | Forward::Remote(_) | Forward::Agent(_) | Forward::X11(_) => {}
        }
    }
    Ok(())
}

pub(super) fn check_account(target: &Target, account: &str) -> Result<(), Denied> {
    if target.accounts.iter().any(|known| known == account) {
        return Ok(());
    }
    let shown = crate::text::clean(account, 64);
    Err(Denied::new(
        "account",
        format!("target `{}` has no account `{shown}`", target.name),
    )
    .with_help(format!("its accounts are: {}", target.accounts.join(", "))))
}

pub(super) fn check_window(
    target: &Target,
    not_before: Timestamp,
    not_after: Timestamp,
    now: Timestamp,
) -> Result<(), Denied> {
    check_length(target, not_before, not_after)?;
    if not_after <= now {
        return Err(Denied::new("window", "the window has ended already"));
    }
    Ok(())
}

fn seconds(from: Timestamp, until: Timestamp) -> u64 {
    until.since(from).unsigned_abs().div_ceil(1000)
}

fn check_length(target: &Target, from: Timestamp, until: Timestamp) -> Result<(), Denied> {
    let refuse = |text: String| Err(Denied::new("window", text));
    if until <= from {
        return refuse("the window ends before it begins".to_owned());
    }
    let seconds = seconds(from, until);
    if seconds > target.max_seconds {
        return refuse(format!(
            "the window from {from} is {seconds} s long; target `{}` allows {} s",
            target.name, target.max_seconds
        ));
    }
    Ok(())
}

/// Windows by a rule: the instants are what is allowed, so they are what is checked.
pub(super) fn check_recurrence(
    target: &Target,
    request: &Request,
    recurrence: &Recurrence,
    now: Timestamp,
) -> Result<(), Denied> {
    let refuse = |text: String| Err(Denied::new("window", text));
    let Recurrence {
        rule,
        zone,
        tzdata,
        windows,
    } = recurrence;
    let is_line = |text: &str| (1..=256).contains(&text.len()) && !text.chars().any(is_unsafe);
    if ![rule, zone, tzdata].into_iter().all(|text| is_line(text)) {
        return refuse("windows name their rule, zone and zone data in a line each".to_owned());
    }
    if request.uses != Uses::Reusable {
        return refuse("a grant with windows is reusable".to_owned());
    }
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        return refuse("the rule leads to no window".to_owned());
    };
    if windows.len() > MAX_WINDOWS {
        return refuse(format!("a request has at most {MAX_WINDOWS} windows"));
    }
    let in_order = |pair: &[Window]| matches!(pair, [one, next] if one.until <= next.from);
    if !windows.windows(2).all(in_order) {
        return refuse("the windows overlap or are out of order".to_owned());
    }
    for window in windows {
        check_length(target, window.from, window.until)?;
    }
    if (first.from, last.until) != (request.not_before, request.not_after) {
        return refuse("the request begins and ends otherwise than its windows".to_owned());
    }
    if seconds(first.from, last.until) > MAX_WINDOW_SECONDS {
        return refuse("the windows reach over more than 90 days".to_owned());
    }
    if last.until <= now {
        return refuse("the last window has ended already".to_owned());
    }
    Ok(())
}

pub(super) fn check_prose(prose: &Prose, min: u32, what: &str) -> Result<(), Denied> {
    if prose.is_substantial(min) {
        return Ok(());
    }
    Err(
        Denied::new("prose", format!("the {what} is too short or says nothing")).with_help(
            format!("write at least {min} characters in at least two words"),
        ),
    )
}

/// Why somebody ends something. That never fails on its wording, only where there is none.
pub(super) fn check_reason(reason: &Prose) -> Result<(), Denied> {
    if reason.chars > 0 {
        return Ok(());
    }
    Err(Denied::new("prose", "the reason is empty").with_help("say why in a word: `--reason TEXT`"))
}

pub(super) fn check_ticket(target: &Target, ticket: Option<&Ticket>) -> Result<(), Denied> {
    if let Some(ticket) = ticket
        && !(is_text(&ticket.system) && is_text(&ticket.id))
    {
        return Err(Denied::new(
            "ticket",
            "a ticket is a system and an id without spaces",
        ));
    }
    let Some(TicketRule { system, pattern }) = &target.ticket else {
        return Ok(());
    };
    let help = format!("give one with `--ticket {system}:ID`, where ID looks like `{pattern}`");
    match ticket {
        None => Err(Denied::new(
            "ticket",
            format!("target `{}` demands a ticket", target.name),
        )
        .with_help(help)),
        Some(ticket) if ticket.system == *system && ticket_matches(pattern, &ticket.id) => Ok(()),
        Some(_) => {
            Err(Denied::new("ticket", "the ticket does not fit the target's rule").with_help(help))
        }
    }
}

/// Does a ticket id match a pattern (`#` digits, `@` letters, `*` letters, digits, `-`, `_`)?
pub fn ticket_matches(pattern: &str, id: &str) -> bool {
    if !is_text(pattern) || !is_text(id) {
        return false;
    }
    // Dynamic programming over positions: no pattern is slow.
    let id: Vec<char> = id.chars().collect();
    let mut reach = vec![false; id.len() + 1];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    for symbol in pattern.chars() {
        let mut next = vec![false; id.len() + 1];
        let mut before = false;
        for (i, c) in id.iter().enumerate() {
            let here = reach.get(i).copied().unwrap_or(false);
            let fits = match symbol {
                '#' => c.is_ascii_digit(),
                '@' => c.is_ascii_alphabetic(),
                '*' => c.is_ascii_alphanumeric() || *c == '-' || *c == '_',
                literal => *c == literal,
            };
            before = fits && (here || (before && "#@*".contains(symbol)));
            if let Some(slot) = next.get_mut(i + 1) {
                *slot = before;
            }
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_patterns() {
        for (pattern, id, fits) in [
            ("OPS-#", "OPS-42", true),
            ("OPS-#", "OPS-", false),
            ("OPS-#", "OPS-4x", false),
            ("@-#", "abc-1", true),
            ("@-#", "-1", false),
            ("INC*", "INC0012", true),
            ("INC*", "INC", false),
            ("*", "a b", false),
            ("#", "", false),
        ] {
            assert_eq!(ticket_matches(pattern, id), fits, "{pattern} {id}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "-x", "a..b", "A", "a b", "a\u{1b}", "a/b", ".a"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a@b",
            "a+b",
            "$(id)",
            "a\u{202e}b",
            "a/../b",
            "..",
        ] {
            assert!(!is_account(bad), "{bad:?}");
        }
        assert!(is_name("db1") && is_account("root") && is_account("DOMAIN.user_1-x"));
    }
}

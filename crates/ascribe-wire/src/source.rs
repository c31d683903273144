//! The `source-address` option of OpenSSH certificates: from where a certificate may be used.

use std::net::IpAddr;

/// Longest list, in bytes.
const MAX_LIST: usize = 4096;

/// Is the address in the list of addresses and networks (`192.0.2.0/24,2001:db8::1`)? A list that is
/// not exactly of that form allows nobody.
pub fn allows(list: &str, from: IpAddr) -> bool {
    let from = bits(from);
    let Some(networks) = networks(list) else {
        return false;
    };
    let within = |(kind, network, len): &(usize, u128, u32)| {
        *kind == from.0 && prefix(from.0, from.1, *len) == *network
    };
    networks.iter().any(within)
}

/// Family width, network and prefix length of each item.
fn networks(list: &str) -> Option<Vec<(usize, u128, u32)>> {
    let parse = |item: &str| {
        let (address, len) = match item.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (item, None),
        };
        let (width, network) = bits(address.parse().ok()?);
        let most = u32::try_from(width).ok()?;
        let len = match len {
            None => most,
            Some(text) => text.parse().ok().filter(|l: &u32| l.to_string() == text)?,
        };
        // As in OpenSSH, a network has no bits beyond its prefix: whoever wrote it meant another one.
        (len <= most && prefix(width, network, len) == network).then_some((width, network, len))
    };
    if list.len() > MAX_LIST {
        return None;
    }
    list.split(',').map(parse).collect()
}

/// The address as a number, with its width. IPv4 in IPv6 is IPv4.
fn bits(address: IpAddr) -> (usize, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    }
}

/// The first `len` of `width` bits.
fn prefix(width: usize, number: u128, len: u32) -> u128 {
    let rest = u32::try_from(width).unwrap_or(128).saturating_sub(len);
    // A shift by all bits is none at all.
    let head = number.checked_shr(rest).unwrap_or(0);
    head.checked_shl(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_within_the_listed_networks() {
        for (list, from, good) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("10.0.0.0/8,192.0.2.0/25", "192.0.2.127", true),
            ("10.0.0.0/8,192.0.2.0/25", "192.0.2.128", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            assert_eq!(allows(list, from.parse().unwrap()), good, "{list} {from}");
        }
    }

    #[test]
    fn a_list_of_another_form_allows_nobody() {
        let from = "192.0.2.7".parse().unwrap();
        for list in [
            "",
            ",",
            "192.0.2.7,",
            "192.0.2.7, 192.0.2.8",
            "192.0.2.7 ",
            "!192.0.2.8",
            "192.0.2.*",
            "192.0.2.7/33",
            "192.0.2.7/24",
            "192.0.2.0/024",
            "192.0.2.0/+24",
            "192.0.2.0/",
            "192.0.2.0/24/24",
            "192.0.2",
            "0xc0000207",
            "localhost",
            "192.0.2.7\0",
        ] {
            assert!(!allows(list, from), "{list:?}");
        }
        // One bad item spoils the list.
        assert!(!allows("192.0.2.7,nonsense", from));
        let long = vec!["192.0.2.7"; 1000].join(",");
        assert!(!allows(&long, from));
    }
}

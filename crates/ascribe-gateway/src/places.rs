//! Places for connections, by where they come from: so many are served, so many wait, and more are
//! not taken. The peer is not trusted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Addresses that are remembered before those without a connection are forgotten.
const REMEMBERED: usize = 4096;

/// The places of every address.
#[derive(Debug)]
pub struct Places {
    served: usize,
    waiting: usize,
    table: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A connection's turn, once it comes.
#[derive(Debug)]
pub struct Turn(Arc<Semaphore>);

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// What counts as one address: an IPv6 network of 64 bits is one, for one host has all of it.
fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let network = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

impl Places {
    /// So many connections of an address are served at once, and so many more wait.
    pub fn new(served: usize, waiting: usize) -> Self {
        Self {
            served: served.max(1),
            waiting,
            table: Mutex::default(),
        }
    }

    /// A new connection's turn; none when too many wait already.
    pub fn take(&self, ip: IpAddr) -> Option<Turn> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() > REMEMBERED {
            table.retain(|_, place| Arc::strong_count(place) > 1);
        }
        let place = table
            .entry(origin(ip))
            .or_insert_with(|| Arc::new(Semaphore::new(self.served)));
        // The table aside, each connection holds it once.
        let held = Arc::strong_count(place).saturating_sub(1);
        (held < self.served.saturating_add(self.waiting)).then(|| Turn(Arc::clone(place)))
    }
}

impl Turn {
    /// Waits for a place.
    pub async fn place(self) -> Option<Place> {
        let permit = self.0.acquire_owned().await.ok()?;
        Some(Place { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn so_many_are_served_so_many_wait_and_more_are_not_taken() {
        let places = Places::new(1, 1);
        let home = ip("192.0.2.1");
        let first = places.take(home).unwrap().place().await.unwrap();
        let second = tokio::spawn(places.take(home).unwrap().place());
        assert!(places.take(home).is_none());
        // Another address has places of its own.
        assert!(places.take(ip("192.0.2.2")).is_some());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.is_some() && places.take(home).is_some());
    }

    #[test]
    fn one_host_is_one_address_however_it_is_written() {
        let places = Places::new(1, 0);
        for (one, other) in [
            ("2001:db8::1", "2001:db8::ffff:2"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
        ] {
            let turn = places.take(ip(one));
            assert!(turn.is_some() && places.take(ip(other)).is_none(), "{one}");
        }
        let turn = places.take(ip("2001:db8::1"));
        assert!(turn.is_some() && places.take(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten() {
        let places = Places::new(1, 0);
        let kept = places.take(ip("192.0.2.1"));
        for n in 0..20_000u32 {
            assert!(places.take(IpAddr::V4((0x0a00_0000 + n).into())).is_some());
        }
        assert!(places.table.lock().unwrap().len() <= REMEMBERED + 1);
        assert!(kept.is_some() && places.take(ip("192.0.2.1")).is_none());
    }
}

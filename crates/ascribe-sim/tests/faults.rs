//! When things go wrong: the real binary, a stock `ssh`, a real `sshd`, and a fault. Each ends in a
//! clear error, loses nothing that was acknowledged, runs nothing without a durable intent, and
//! leaves a directory that verifies.

#[cfg(test)]
mod faults {
    #[path = "../e2e/dial.rs"]
    mod dial;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod api;
    mod client;
    mod disk;
    mod full;
    mod grants;
    mod kit;
    mod names;
    mod servers;
    mod strangers;
    mod time;
    mod windows;
    mod wire;
    mod zones;
}

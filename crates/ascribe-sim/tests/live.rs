//! How a session opens, who looks on while it runs, and who ends it. The real binary, a stock `ssh`, a real `sshd`.

#[cfg(test)]
mod live {
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod connect;
    mod watch;
}

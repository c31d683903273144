//! A person delegates, agents accept and act with their own keys. The real binary, a stock `ssh` with
//! `ssh-agent`, a real `sshd`.

#[cfg(test)]
mod agents {
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod chains;
}

//! Directories over SCIM, as Okta and Entra provision. The real binary, stock `ssh` and `curl`, a real `sshd`.

#[cfg(test)]
mod directory {
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/providers.rs"]
    mod providers;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod hostile;
    mod office;
    mod provisioning;
}

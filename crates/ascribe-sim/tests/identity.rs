//! Logins through a real identity provider. The real binary, stock `ssh` and `ssh-agent`, a real `sshd`.

#[cfg(test)]
mod identity {
    #[path = "../e2e/dial.rs"]
    mod dial;
    #[path = "../e2e/providers.rs"]
    mod providers;
    #[path = "../e2e/python.rs"]
    mod python;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod agent;
    mod authn;
    mod gitlab;
    mod groups;
    mod idp;
    mod jobs;
    mod login;
    mod observers;
    mod recorder;
    mod refusals;
    mod spiffe;
    mod svid;
    mod workload;
    mod workload_api;
}

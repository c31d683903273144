//! Databases: the real binary between stock clients and a real PostgreSQL, whose own log is looked at
//! beside ours.

#[cfg(test)]
mod postgres {
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../identity/agent.rs"]
    mod agent;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../identity/idp.rs"]
    mod idp;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/providers.rs"]
    mod providers;
    #[path = "../identity/spiffe.rs"]
    mod spiffe;
    #[path = "../e2e/token.rs"]
    mod token;

    #[path = "../e2e/python.rs"]
    mod python;

    mod bank;
    mod bearers;
    mod commands;
    mod copies;
    mod crowds;
    mod doors;
    mod drivers;
    mod hostile_vault;
    mod jobs;
    mod kills;
    mod large;
    mod liars;
    mod malformed;
    mod mtls;
    mod named;
    mod oauth;
    mod openbao;
    mod protocol;
    mod raw;
    mod reconcile;
    mod regression;
    mod security_keys;
    mod smuggled;
    mod stalls;
    mod statements;
    mod tokens;
    mod tokio_driver;
    mod vault;
    mod versions;
}

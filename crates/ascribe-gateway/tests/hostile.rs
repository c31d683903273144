//! Peers that break the protocol's manners, or themselves: clients and targets.

#[cfg(test)]
mod hostile {
    #[path = "../ssh/door.rs"]
    mod door;
    #[path = "../ssh/people.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod people;
    #[path = "../ssh/raw.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod raw;
    #[path = "../ssh/world.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod world;

    mod clients;
    mod memory;
    mod targets;
}

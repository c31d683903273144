//! Ordinary tools, unchanged, over plain SSH through the gateway. `ASCRIBE_LONG=1` runs the full sizes.

#[cfg(test)]
mod tools {
    #[path = "../ssh/door.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod door;
    #[path = "../ssh/people.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod people;
    #[path = "../ssh/world.rs"]
    #[expect(dead_code, reason = "shared with tests/ssh.rs, which uses all of it")]
    mod world;

    #[path = "../ssh/raw.rs"]
    mod raw;

    mod access;
    mod ansible;
    mod audit;
    mod files;
    mod many;
    mod multiplexed;
    mod same_record;
    mod streams;
}

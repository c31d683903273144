//! Witnesses: the real binary as a log that has some and as one of other logs', beside witnesses that
//! we did not write and some that nobody should have.

#[cfg(test)]
mod witness {
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    #[path = "../e2e/world.rs"]
    mod world;

    mod hostile;
    mod kit;
    mod log;
    mod own;
    mod peers;
}

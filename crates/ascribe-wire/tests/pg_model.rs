//! The tracker against a model of a server, which the fuzz target has too.

#![cfg(test)]

#[path = "../../../fuzz/src/pg.rs"]
pub mod model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_server_runs_the_texts_that_were_recorded(data in proptest::collection::vec(any::<u8>(), 0..800)) {
        model::pg_session(&data);
    }

    #[test]
    fn foreign_bytes(data in proptest::collection::vec(any::<u8>(), 0..100)) {
        model::pg_startup(&data);
        model::pg_client(&data);
        model::pg_server(&data);
    }
}

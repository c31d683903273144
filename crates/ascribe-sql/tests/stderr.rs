//! The library could be built to lead standard error into a pipe while it parses, for the whole process,
//! and with several threads it would stay there. This version leaves it alone. The test is alone in its
//! process, for it looks at a descriptor of it.

#![cfg(test)]

use ascribe_sql::{Encoding, Reading};

const PLAIN: Reading = Reading {
    encoding: Encoding::Utf8,
    standard_conforming_strings: true,
    replication: false,
};

#[test]
fn standard_error_is_left_alone() {
    let where_to = || std::fs::read_link("/proc/self/fd/2").unwrap();
    let before = where_to();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..500 {
                    ascribe_sql::read(format!("select {thread}, {n}").as_bytes(), PLAIN).unwrap();
                }
            });
        }
        for _ in 0..10_000 {
            assert_eq!(where_to(), before);
        }
    });
}

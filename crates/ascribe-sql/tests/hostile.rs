//! Texts that are meant to bring the parser down, and those that only its summary can tell.

#![cfg(test)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use ascribe_sql::{Answer, Class, Classifier, Encoding, Flag, MAX_TEXT, Reading, Unparsed};

const PLAIN: Reading = Reading {
    encoding: Encoding::Utf8,
    standard_conforming_strings: true,
    replication: false,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future here.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn told(classifier: &Classifier, text: String) -> Answer {
    wait(classifier.classify(text.into(), PLAIN))
}

#[test]
fn nesting_and_chains_of_any_length_end_in_an_answer() {
    let forms: &[(&str, &str, &str)] = &[
        ("select ", "(", "1"),
        ("select ", "not ", "true"),
        ("select ", "+ ", "1"),
        ("select ", "(select ", "1"),
        ("select ", "f(", "1"),
        ("select ", "array[", "1"),
        ("select ", "case when ", "1"),
        ("", "with x as (", "select 1"),
        ("select 1", "+1", ""),
        ("select a", "||a", ""),
        ("select 1", "::int", ""),
        ("select 1", " is null", ""),
        ("select 1", " collate c", ""),
        ("select 1", " union select 1", ""),
        ("select 1 from a", " cross join b", ""),
        ("select a", "[1]", ""),
        ("", "explain ", "select 1"),
        ("", "/*", ""),
        ("select ", "+", "1"),
        ("select ", "+-", "1"),
        ("", "/* ", ""),
        ("select '", "--", "'"),
        ("select 'a'", "\n", "'b'"),
        ("select ", "$a$", "b"),
        ("with a as (select 1)", ", b as (table a)", "select 1"),
        ("grant a to b", ",b", ""),
    ];
    let classifier = Classifier::new(2).unwrap();
    for (begin, middle, end) in forms {
        for count in [10, 100, 1000, 10_000, 200_000] {
            let count = count.min((MAX_TEXT - 100) / (middle.len() + 4));
            let close = match middle.trim_end().as_bytes() {
                [.., b'('] => ")",
                [.., b'['] => "]",
                [.., b'n'] => " end",
                _ => "",
            };
            let text = format!(
                "{begin}{}{end}{}",
                middle.repeat(count),
                close.repeat(count)
            );
            let begun = Instant::now();
            // Any answer will do. A crash would end this test.
            drop(told(&classifier, text));
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(60), "{middle} {count}: {took:?}");
        }
    }
}

#[test]
fn what_is_too_deep_or_too_large_for_the_tree_is_told_by_the_summary() {
    let classifier = Classifier::new(1).unwrap();
    let chain = "||a".repeat(1000);
    let one = |text: String| {
        let all = told(&classifier, text.clone()).unwrap_or_else(|e| panic!("{text:.40}: {e}"));
        assert_eq!(all.len(), 1);
        all[0].clone()
    };
    let plain = one(format!(" select a{chain} from s.t "));
    assert_eq!(plain.classes, [Class::Select]);
    assert!(!plain.complete && plain.flags.is_empty());
    assert_eq!(plain.range, 1..plain.range.end);
    assert_eq!(plain.objects[0].schema.as_deref(), Some("s"));

    let hidden = one(format!(
        "with x as (delete from t returning a{chain}) select set_config('role', 'bob', true) from x"
    ));
    assert_eq!(hidden.classes, [Class::Select, Class::Delete]);
    assert!(hidden.flags.contains(&Flag::SetRole));

    let rows = ",(1)".repeat(100_000);
    let insert = one(format!("insert into t values (1){rows}"));
    assert_eq!(insert.classes, [Class::Insert]);
    let upsert = one(format!(
        "insert into t values (1){rows} on conflict (a) do update set a = 1"
    ));
    assert_eq!(upsert.classes, [Class::Insert, Class::Update]);
    let copied = one(format!("insert into t select a{chain} from u"));
    assert_eq!(copied.classes, [Class::Select, Class::Insert]);
    let into = one(format!("select a{chain} into n from u"));
    assert_eq!(into.classes, [Class::Select, Class::Ddl]);

    // A long literal is not many tokens: its statement is told exactly.
    let body = "x".repeat(200_000);
    let function = one(format!(
        "create function f() returns int language sql set role = bob as '{body}'"
    ));
    assert!(function.complete);
    assert_eq!(function.flags, [Flag::SetRole]);

    // Only the one that is too deep is told by its summary.
    let all = told(
        &classifier,
        format!("load 'x'; select a{chain} from t; do ''"),
    );
    let all = all.unwrap();
    assert_eq!(all[0].flags, [Flag::Load]);
    assert!(all[0].complete && !all[1].complete && all[2].complete);

    // What the summary does not look into is not guessed at.
    for within in [
        format!("explain analyze delete from t where a{chain} = ''"),
        format!("copy (select a{chain}) to program 'x'"),
        format!("prepare p as select a{chain}"),
    ] {
        assert_eq!(told(&classifier, within), Err(Unparsed::TooComplex));
    }
}

#[test]
fn answers_come_from_the_cache_and_are_the_same() {
    /// It may be awaited in a task that moves between threads.
    fn movable<T: Send + 'static>(asked: T) -> T {
        asked
    }
    let classifier = Classifier::new(1).unwrap();
    let asked = movable(classifier.classify("select 0".into(), PLAIN));
    assert!(wait(asked).is_ok());
    let first = told(&classifier, "select 1".to_owned()).unwrap();
    let again = told(&classifier, "select 1".to_owned()).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let error = told(&classifier, "selec".to_owned());
    assert!(matches!(error, Err(Unparsed::Syntax(_))));
    assert_eq!(told(&classifier, "selec".to_owned()), error);
    let replication = Reading {
        replication: true,
        ..PLAIN
    };
    assert!(told(&classifier, "IDENTIFY_SYSTEM".to_owned()).is_err());
    assert!(wait(classifier.classify("IDENTIFY_SYSTEM".into(), replication)).is_ok());
    let large = " ".repeat(MAX_TEXT + 1);
    assert_eq!(
        told(&classifier, large),
        Err(Unparsed::TooLarge(MAX_TEXT + 1))
    );
}

/// More askers than there are places in the queue, some of whom go away.
#[test]
fn everybody_who_waits_is_answered() {
    let classifier = Classifier::new(2).unwrap();
    std::thread::scope(|scope| {
        for asker in 0..600 {
            let classifier = &classifier;
            scope.spawn(move || {
                let mut gone = classifier.classify(format!("select {asker}, 2").into(), PLAIN);
                let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                if std::pin::Pin::new(&mut gone)
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
                {
                    drop(gone);
                }
                let all = told(classifier, format!("select {asker}")).unwrap();
                assert_eq!(all[0].classes, [Class::Select]);
            });
        }
    });
}

#[test]
fn a_classifier_that_is_dropped_answers_that_it_is_closed() {
    let classifier = Classifier::new(1).unwrap();
    let slow = format!("select 1{}", " or 1".repeat(10_000));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut asked: Vec<_> = (0..400)
        .map(|n| classifier.classify(format!("{slow} or {n}").into(), PLAIN))
        .collect();
    for one in &mut asked {
        let first = std::pin::Pin::new(one).poll(&mut Context::from_waker(&waker));
        assert!(first.is_pending());
    }
    drop(classifier);
    let closed = asked.into_iter().map(wait);
    let closed = closed
        .filter(|answer| *answer == Err(Unparsed::Closed))
        .count();
    assert!(closed >= 398, "{closed}");
}

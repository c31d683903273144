//! What only bytes show: how messages may be strung together, and how they may not.

use super::bank::Bank;
use super::raw::{Raw, bind, execute, kinds, parse, query, sync};

#[test]
fn messages_behind_one_that_changes_how_texts_are_read_are_not_lost() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let texts = ["selec 1", "set client_encoding = 'LATIN1'", "select 3"];
    raw.say(&texts.map(query).concat());
    let said: String = texts.iter().map(|_| kinds(&raw.until(b'Z'))).collect();
    assert_eq!(said.replace('S', ""), "EZCZTDCZ");
    // The same by the other protocol, in one burst.
    let run = |text: &str| [parse("", text), bind("", "", &[]), execute(""), sync()].concat();
    let texts = ["set client_encoding = 'UTF8'", "selec 1", "select 3"];
    raw.say(&texts.map(run).concat());
    let said: String = texts.iter().map(|_| kinds(&raw.until(b'Z'))).collect();
    assert_eq!(said.replace('S', ""), "12CZEZ12DCZ");
}

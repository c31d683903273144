//! The same batching over `SQLite`: write-ahead log, `synchronous=FULL`, one transaction a group.

use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::Connection;

/// An empty database whose transactions are durable.
fn create(path: &Path) -> Result<Connection> {
    let db = Connection::open(path)?;
    let mode: String = db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "there is no write-ahead log here");
    db.execute_batch(
        "PRAGMA synchronous=FULL;
         CREATE TABLE entries (n INTEGER PRIMARY KEY, entry BLOB NOT NULL);",
    )?;
    Ok(db)
}

/// Inserts each group in one transaction.
pub(crate) fn insert_into(
    path: &Path,
) -> Result<impl FnMut(&[&[u8]]) -> Result<()> + Send + 'static> {
    let mut db = create(path)?;
    Ok(move |group: &[&[u8]]| {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO entries (entry) VALUES (?1)")?;
            for bytes in group {
                insert.execute([bytes])?;
            }
        }
        Ok(transaction.commit()?)
    })
}

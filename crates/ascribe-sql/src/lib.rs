//! What a PostgreSQL statement is, by PostgreSQL's own grammar: its classes, its dangers, the objects
//! it names.
//!
//! In scope: the text of a `Query` or `Parse` message, cut into statements without a change to it.
//! Out of scope: what a statement does beyond its text. Functions, triggers, rules, `DO`, `EXECUTE`
//! and views hide effects, and names are as they are written, not as a search path resolves them. So
//! what is said here is advice for a policy; what holds is the role that the database enforces.
//!
//! The grammar is that of PostgreSQL 18. Text that an older server reads and this grammar does not is
//! [`Unparsed`], and so is everything that cannot be told for certain. Begin with [`Classifier`], which
//! has its own threads: the text is chosen by whoever sends it, and the parser is C.

mod cache;
mod parse;
mod pool;
mod shape;
mod statement;
mod tree;
mod walk;

pub use parse::{MAX_STATEMENTS, MAX_TEXT, may_be_flagged, read};
pub use pool::{Answer, Classifier, Classifying};
pub use statement::{
    Access, Class, Encoding, Flag, MAX_OBJECTS, Object, Reading, Statement, Unparsed,
};

//! Tokens as providers make them, and as nobody may make them, under keys that are made for each run.

#[cfg(test)]
mod token {
    mod groups;
    mod hostile;
    mod issuer;
    mod managers;
    mod proofs;
    mod providers;
    mod python;
    mod spec;
    mod svid;
}

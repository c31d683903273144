//! Real OpenSSH client, our gateway on a real ledger, real sshd.

#[cfg(test)]
mod ssh {
    mod before_login;
    mod bursts;
    mod certificates;
    mod channels;
    mod door;
    mod ends;
    mod evidence;
    mod files;
    mod forward;
    mod jump;
    mod logins;
    mod people;
    mod raw;
    mod refused;
    mod same;
    mod security_keys;
    mod slow_ledger;
    mod target;
    mod world;
}

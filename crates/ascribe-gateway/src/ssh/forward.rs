//! The one place where an action goes to a target.

use std::time::{Duration, Instant};

use ascribe_core::gate::{FORWARD_WITHIN_MS, Recorded};
use russh::ChannelWriteHalf;
use russh::client::Msg;

pub(crate) enum Sent {
    Yes,
    TooLate,
    Broken,
}

/// Sends a recorded action, unless more than [`FORWARD_WITHIN_MS`] passed since `asked`.
pub(crate) async fn send(
    recorded: Recorded,
    target: &ChannelWriteHalf<Msg>,
    asked: Instant,
) -> Sent {
    if asked.elapsed() > Duration::from_millis(FORWARD_WITHIN_MS) {
        return Sent::TooLate;
    }
    let action = recorded.into_action();
    for (name, value) in &action.env {
        if target
            .set_env(false, name.as_str(), value.as_str())
            .await
            .is_err()
        {
            return Sent::Broken;
        }
    }
    if let Some(pty) = &action.pty
        && target
            .request_pty(false, &pty.term, pty.cols, pty.rows, 0, 0, &[])
            .await
            .is_err()
    {
        return Sent::Broken;
    }
    if asked.elapsed() > Duration::from_millis(FORWARD_WITHIN_MS) {
        return Sent::TooLate;
    }
    let written = match (action.kind, action.command) {
        ("ssh.shell", _) => target.request_shell(true).await,
        ("ssh.sftp", _) => target.request_subsystem(true, "sftp").await,
        (_, Some(command)) => target.exec(true, command).await,
        (_, None) => return Sent::Broken,
    };
    if written.is_ok() {
        Sent::Yes
    } else {
        Sent::Broken
    }
}

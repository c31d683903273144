//! Every SSH channel type and request that a client can send, and what becomes of it.

use crate::{scp, sftp};

/// What the gateway does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Part of an entry before it takes effect.
    Recorded,
    /// Refused; the refusal is an entry.
    RefusedAndRecorded,
    /// Recorded before it takes effect where the grant names it; otherwise refused, and the refusal is
    /// an entry.
    RecordedIfGranted,
    /// Not an entry; why.
    Ignored(&'static str),
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $place:literal => $policy:expr;)*) => {
        /// A channel type, channel request or global request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Request { $($(#[$doc])* $name,)* }
        impl Request {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Name on the wire.
            pub fn wire(self) -> &'static str { match self { $(Self::$name => $wire,)* } }
            /// `channel`, `request` or `global`.
            pub fn place(self) -> &'static str { match self { $(Self::$name => $place,)* } }
            /// What becomes of it.
            pub fn policy(self) -> Policy {
                use Policy::{Ignored, Recorded, RecordedIfGranted, RefusedAndRecorded};
                match self { $(Self::$name => $policy,)* }
            }
        }
    };
}

requests! {
    /// A session channel.
    Session = "session", "channel" => Ignored("opens no action by itself; its requests are recorded");
    /// Local forwarding.
    DirectTcpip = "direct-tcpip", "channel" => RecordedIfGranted;
    /// Local socket forwarding.
    DirectStreamlocal = "direct-streamlocal@openssh.com", "channel" => RecordedIfGranted;
    /// Only a server opens this.
    ForwardedTcpip = "forwarded-tcpip", "channel" => RefusedAndRecorded;
    /// Only a server opens this.
    X11Channel = "x11", "channel" => RefusedAndRecorded;
    /// Tunnel device.
    Tun = "tun@openssh.com", "channel" => Ignored("the library refuses it before the gateway sees it");
    /// A command.
    Exec = "exec", "request" => Recorded;
    /// A shell.
    Shell = "shell", "request" => Recorded;
    /// A subsystem.
    Subsystem = "subsystem", "request" => Recorded;
    /// An environment variable.
    Env = "env", "request" => Recorded;
    /// A terminal.
    PtyReq = "pty-req", "request" => Recorded;
    /// A new terminal size.
    WindowChange = "window-change", "request" => Ignored("changes only the size of a recorded terminal");
    /// A signal for the process.
    Signal = "signal", "request" => Ignored("its effect is in the outcome of a recorded action");
    /// Flow control by the client.
    XonXoff = "xon-xoff", "request" => Ignored("has no effect on the target");
    /// A break.
    Break = "break", "request" => Ignored("the library refuses it before the gateway sees it");
    /// Agent forwarding.
    AgentForward = "auth-agent-req@openssh.com", "request" => RecordedIfGranted;
    /// X11 forwarding.
    X11 = "x11-req", "request" => RecordedIfGranted;
    /// End of the client's write side.
    EndOfWrite = "eow@openssh.com", "request" => Ignored("the library refuses it; carries no content");
    /// Remote forwarding.
    TcpipForward = "tcpip-forward", "global" => RecordedIfGranted;
    /// End of remote forwarding.
    CancelTcpipForward = "cancel-tcpip-forward", "global" => Ignored("takes permission away and gives none");
    /// Remote socket forwarding.
    StreamlocalForward = "streamlocal-forward@openssh.com", "global" => RecordedIfGranted;
    /// End of remote socket forwarding.
    CancelStreamlocalForward = "cancel-streamlocal-forward@openssh.com", "global" => Ignored("takes permission away and gives none");
    /// A sign of life.
    Keepalive = "keepalive@openssh.com", "global" => Ignored("a sign of life without content");
    /// No further sessions.
    NoMoreSessions = "no-more-sessions@openssh.com", "global" => Ignored("only limits the client itself");
}

/// The list of what is not an entry of its own, one a line with its reason.
pub fn unrecorded() -> String {
    let mut out = String::new();
    for request in Request::ALL {
        if let Policy::Ignored(why) = request.policy() {
            out.push_str(&format!("{} {}: {why}\n", request.place(), request.wire()));
        }
    }
    for (protocol, list) in [("sftp", sftp::UNRECORDED), ("scp", scp::UNRECORDED)] {
        for (name, why) in list {
            out.push_str(&format!("{protocol} {name}: {why}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_of_what_is_not_recorded_is_the_published_one() {
        assert_eq!(
            super::unrecorded(),
            include_str!("../testdata/unrecorded.txt")
        );
    }
}

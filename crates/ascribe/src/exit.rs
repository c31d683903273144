//! Exit codes, and failures as people read them.
//!
//! 0 ok, 1 failure, 2 denied, 3 usage or configuration, 4 proof failed.

use std::fmt;
use std::process::ExitCode;

use ascribe_core::law::Denied;

/// What kind of failure it is: decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something did not work.
    Failure,
    /// The law said no.
    Denied,
    /// The command line or a configuration is wrong.
    Usage,
    /// Evidence does not prove what it claims.
    Proof,
}

impl Kind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Denied => 2,
            Self::Usage => 3,
            Self::Proof => 4,
        }
    }
}

/// A failure with its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
        }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Failure {}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self {
            kind: Kind::Denied,
            message: denied.message,
            help: denied.help,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Kind::Failure, format!("{error:#}")),
        }
    }
}

/// The result of a command.
pub(crate) type Done<T = ()> = Result<T, Failure>;

/// Adds what was attempted to an error.
pub(crate) trait Attempt<T> {
    /// `failed to {what}: {cause}`.
    fn attempt(self, what: impl fmt::Display) -> Done<T>;
}

impl<T, E: fmt::Display> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl fmt::Display) -> Done<T> {
        self.map_err(|e| Failure::new(Kind::Failure, format!("failed to {what}: {e}")))
    }
}

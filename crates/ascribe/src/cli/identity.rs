//! Providers of identities, who is who there, and logins.

use std::path::PathBuf;

use ascribe_core::directory::GroupRole;
use ascribe_core::id::StatementId;
use ascribe_core::identity::ProviderKind;
use clap::{Args, Subcommand};

use super::parse::{Words, claim, group_role, provider_kind, seconds, words};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The provider, where several are registered.
    #[arg(long, value_name = "NAME", conflicts_with = "workload")]
    pub(crate) provider: Option<String>,
    /// Log in on another device: for machines without a browser. Counts for less, since nothing then
    /// binds the login to this machine's key.
    #[arg(long, conflicts_with = "workload")]
    pub(crate) device: bool,
    /// Print the address instead of opening a browser.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// The job's identity, by name: its own token, no person.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
    /// File with the job's token.
    #[arg(
        long,
        value_name = "FILE",
        requires = "workload",
        conflicts_with = "token_command"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Program that prints the job's token for the audience in ASCRIBE_AUDIENCE, with its arguments: one text, quoted
    /// as for a shell (`--token-command "PROGRAM ARGUMENT ..."`). No shell runs it.
    #[arg(long, value_name = "COMMAND", requires = "workload", value_parser = words)]
    pub(crate) token_command: Option<Words>,
    /// File with the workload's X.509-SVID, PEM: its certificate first, then each one's issuer, without the root.
    #[arg(
        long,
        value_name = "CERT.pem",
        requires = "workload",
        requires = "svid_key",
        conflicts_with_all = ["token_file", "token_command"]
    )]
    pub(crate) svid: Option<PathBuf>,
    /// File with its private key, PEM. The key stays there; it signs for this login's key.
    #[arg(long, value_name = "KEY.pem", requires = "svid")]
    pub(crate) svid_key: Option<PathBuf>,
    /// Which of the ids that SPIFFE's agent (SPIFFE_ENDPOINT_SOCKET) knows this process by; the first without.
    #[arg(long, value_name = "SPIFFE-ID", requires = "workload", conflicts_with_all = ["svid", "token_file", "token_command"])]
    pub(crate) spiffe_id: Option<String>,
    /// Where no ssh-agent is at hand: keep the key in this new file, encrypted with a passphrase. It goes
    /// with the login.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// How long the key counts, at most 12h.
    #[arg(long = "for", value_name = "DURATION", default_value = "8h", value_parser = seconds)]
    pub(crate) lasts: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The login; all of yours on this machine without.
    pub(crate) login: Option<StatementId>,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// `ACCOUNT@TARGET`, or `ACCOUNT+GRANT@TARGET`.
    pub(crate) place: String,
    /// Hand the connection to ssh (`ProxyUseFdpass yes`) instead of carrying its bytes.
    #[arg(long)]
    pub(crate) pass: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// Register a provider, or replace one.
    Add(ProviderAdd),
    /// List providers, with their keys and who saw them.
    List,
    /// Fetch its keys from here and sign what is published there, as one of its observers. With an enrolled
    /// key; does nothing where your last word says the same and is fresh enough.
    Observe {
        /// Its name.
        name: String,
        /// Go on, and look again after this time.
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        every: Option<u64>,
    },
    /// Say who must have seen a key of it published before a login counts under that key.
    Observers {
        /// Its name.
        name: String,
        #[command(flatten)]
        observers: ObserversArgs,
        /// Nobody: the server's word is enough.
        #[arg(
            long,
            conflicts_with = "observers",
            required_unless_present = "observers"
        )]
        none: bool,
    },
    /// Show one, with what each observer saw last.
    Show {
        /// Its name.
        name: String,
    },
    /// Withdraw a provider: its logins and their sessions end.
    Withdraw {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProviderAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// `oidc` or `entra` for people; `github`, `buildkite`, `circleci`, `kubernetes`, `spiffe` (JWT-SVIDs),
    /// `spiffe-x509` (X.509-SVIDs), `gitlab` or `workload` for workloads.
    #[arg(long, value_parser = provider_kind)]
    pub(crate) kind: ProviderKind,
    /// The exact issuer in its tokens; of X.509-SVIDs the trust domain, `spiffe://DOMAIN`.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: String,
    /// Whom its tokens are meant for: the client id; for workloads the beginning of the audience. With
    /// `OPENPUBKEY-PKTOKEN:` before it (`gitlab` needs that) it is all of the audience: jobs turn their tokens into
    /// proofs, and show those alone.
    #[arg(long)]
    pub(crate) audience: String,
    /// Where its keys are published, if not where its configuration says.
    #[arg(long, value_name = "URL")]
    pub(crate) jwks: Option<String>,
    /// A signature algorithm that counts.
    #[arg(long = "algorithm", default_values = ["ES256", "RS256"])]
    pub(crate) algorithms: Vec<String>,
    /// How old its keys on record may be when somebody logs in: an hour to a week, a day if not given.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) max_keys_age: Option<u64>,
    /// Without any, a provider that is replaced keeps what it asked for.
    #[command(flatten)]
    pub(crate) authn: AuthnArgs,
    /// Without any, a provider that is replaced keeps its observers.
    #[command(flatten)]
    pub(crate) observers: ObserversArgs,
}

/// How people must have proved themselves to their provider.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct AuthnArgs {
    /// People log in only if the provider says that they proved themselves in this class of ways (`acr`), or in another that
    /// is given; repeatable.
    #[arg(long, value_name = "CLASS")]
    pub(crate) acr: Vec<String>,
    /// The same by these means (`amr`), all that are given; repeatable.
    #[arg(long, value_name = "MEANS")]
    pub(crate) amr: Vec<String>,
    /// The same so long before at most (`auth_time`): a minute to 30 days.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) max_auth_age: Option<u64>,
    /// However they did, also where the provider asked for something before.
    #[arg(long, conflicts_with_all = ["acr", "amr", "max_auth_age"])]
    pub(crate) no_authn: bool,
}

/// Who looks at a provider's keys besides the server.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct ObserversArgs {
    /// Somebody who looks at its keys too, id or name; repeatable. Logins count only under keys that enough
    /// of them saw.
    #[arg(long = "observer", value_name = "PERSON")]
    pub(crate) observers: Vec<String>,
    /// How many of them must have seen a key; all of them if not given.
    #[arg(long = "observers-needed", value_name = "N", requires = "observers")]
    pub(crate) needed: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Say that a person is who a provider's tokens name.
    Link(IdentityArgs),
    /// Take that back, at once: your own, or as an admin anyone's. Their logins end.
    Unlink(IdentityArgs),
    /// List them.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// Id or name.
    pub(crate) person: String,
    /// The provider.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// The token's `sub`; at Entra `TID/OID`. The ledger holds a digest of it and the issuer.
    #[arg(long, value_name = "SUB")]
    pub(crate) subject: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryCommand {
    /// Register a directory, or replace its rules. The token of one that speaks SCIM is printed once.
    Add(DirectoryAdd),
    /// Sign a file that says who is there, for a directory with `--signer`. Whoever it lists no longer is
    /// inactive.
    File {
        /// The directory.
        name: String,
        /// A line for each person: the subject, and after a tab each of their groups, and `manager=SUBJECT`. `#` begins
        /// a remark.
        file: PathBuf,
    },
    /// List directories.
    List,
    /// Draw another token and print it once; the one before counts no longer.
    Token {
        /// Its name.
        name: String,
    },
    /// Withdraw a directory: suspensions by it end, roles by its groups too.
    Withdraw {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DirectoryAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// The provider whose subjects its users are: SCIM's `externalId` is the subject.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// It speaks by files that this person signs, instead of SCIM; repeatable.
    #[arg(long = "signer", value_name = "PERSON", conflicts_with = "claim")]
    pub(crate) signers: Vec<String>,
    /// It speaks by logins, instead of SCIM: this claim of the provider's tokens lists a person's groups. They
    /// count while the login does.
    #[arg(long, value_name = "NAME", conflicts_with = "suspend")]
    pub(crate) claim: Option<String>,
    /// The same: this claim names a person's manager, by their subject at the same issuer.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["suspend", "signers"])]
    pub(crate) manager_claim: Option<String>,
    /// Suspend linked people whom it calls inactive.
    #[arg(long)]
    pub(crate) suspend: bool,
    /// Members of this group have this role: `requester`, `approver` or `auditor`.
    #[arg(long = "role", value_name = "GROUP=ROLE", value_parser = group_role)]
    pub(crate) roles: Vec<GroupRole>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadCommand {
    /// Enrol a workload, or replace its rule.
    Add(WorkloadAdd),
    /// List workloads: who answers for them, how old their rules are, what they hold and use.
    List,
    /// Show one.
    Show {
        /// Name or id.
        name: String,
    },
    /// Somebody else answers for it from now on.
    Owner {
        /// Name or id.
        name: String,
        /// Id or name of the person.
        person: String,
    },
    /// It acts no longer: its logins and sessions end.
    Withdraw {
        /// Name or id.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WorkloadAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// The provider of its tokens.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// The person who answers for it: id or name.
    #[arg(long)]
    pub(crate) owner: String,
    /// A claim and the exact value that it must have. Given again with the same claim: one of them.
    #[arg(long = "when", value_name = "CLAIM=VALUE", value_parser = claim, required = true)]
    pub(crate) conditions: Vec<(String, String)>,
    /// Why a rule that many could meet is meant as it is. Sealed in the ledger.
    #[arg(long, value_name = "TEXT")]
    pub(crate) confirm: Option<String>,
}

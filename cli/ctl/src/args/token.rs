//! Flags of `token`.

use clap::{Args, ValueEnum};
use cluster_types::GoDuration;

/// Flags of `token`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  ipfs-cluster-ctl --basic-auth ann:secret token --scope read --expire-in 720h\n  \
    ipfs-cluster-ctl --basic-auth ann:secret token --revoke\n\n\
    Tokens are taken back at the peer that is asked; ask every peer.")]
pub(crate) struct TokenArguments {
    /// When the token ends, like 720h
    #[arg(long, value_name = "DURATION")]
    pub(crate) expire_in: Option<GoDuration>,
    /// Comma list of what it allows [default: all that the user may do]
    #[arg(long, value_name = "SCOPES", value_enum, value_delimiter = ',')]
    pub(crate) scope: Vec<ScopeArgument>,
    /// Take back all tokens of the user instead
    #[arg(long, conflicts_with_all = ["expire_in", "scope"])]
    pub(crate) revoke: bool,
}

/// `--scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArgument {
    /// To look at everything
    Read,
    /// To add, pin, unpin and recover
    Pin,
    /// To change members and collect garbage
    Admin,
}

impl ScopeArgument {
    /// Its name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pin => "pin",
            Self::Admin => "admin",
        }
    }
}

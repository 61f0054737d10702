//! Why the network could not be started.

use cluster_types::{BoxError, ErrorClass, Multiaddr};

/// The network could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: is another program (or another peer) using the port?")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        #[source]
        cause: BoxError,
    },
    /// No listen address is left.
    #[error(
        "no usable listen address: at least one of /ip4/<address>/tcp/<port> or /ip6/<address>/tcp/<port> is needed"
    )]
    NoListenAddress,
    /// A part of the protocol stack could not be built.
    #[error("cannot set up {part}")]
    SetUp {
        /// Which part.
        part: &'static str,
        /// Why not.
        #[source]
        cause: BoxError,
    },
}

impl NetError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Listen { .. } => ErrorClass::Unavailable,
            Self::NoListenAddress => ErrorClass::Invalid,
            Self::SetUp { .. } => ErrorClass::Fatal,
        }
    }
}

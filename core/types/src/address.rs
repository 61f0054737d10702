//! Multiaddresses as operators write them.

use multiaddr::{Multiaddr, Protocol};

/// A text is not a multiaddress.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid multiaddress {text:?}: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

/// Reads a multiaddress. Unlike its own parser this takes `/unix/<path>` with slashes in the path.
pub fn parse_address(text: &str) -> Result<Multiaddr, AddressError> {
    if let Some(path) = text.strip_prefix("/unix/") {
        let path = format!("/{}", path.trim_start_matches('/'));
        return Ok(Multiaddr::from(Protocol::Unix(path.into())));
    }
    text.parse::<Multiaddr>()
        .map_err(|error| AddressError { text: text.chars().take(200).collect(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_path_may_have_several_parts() {
        let address = parse_address("/unix/run/cluster/api.sock").unwrap();
        assert_eq!(address.iter().next(), Some(Protocol::Unix("/run/cluster/api.sock".into())));
        assert_eq!(parse_address("/ip4/127.0.0.1/tcp/0").unwrap().to_string(), "/ip4/127.0.0.1/tcp/0");
        assert!(parse_address("localhost:9094").is_err());
    }
}

//! How a write was accepted.

use std::fmt;
use std::str::FromStr;

/// How a write was accepted: what the header `X-Cluster-Commit` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// By a quorum, at this place of the log.
    Log {
        /// Term of the entry.
        term: u64,
        /// Index of the entry.
        index: u64,
    },
    /// By this peer alone, since no quorum answered: it is merged when there is one again.
    Eventual,
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { term, index } => write!(f, "{term}-{index}"),
            Self::Eventual => f.write_str("eventual"),
        }
    }
}

/// A text is not a [`Commit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither \"eventual\" nor <term>-<index>")]
pub struct CommitError {
    text: String,
}

impl FromStr for Commit {
    type Err = CommitError;

    fn from_str(text: &str) -> Result<Self, CommitError> {
        if text == "eventual" {
            return Ok(Self::Eventual);
        }
        let place = text.split_once('-').and_then(|(term, index)| Some((term.parse().ok()?, index.parse().ok()?)));
        let (term, index) = place.ok_or_else(|| CommitError { text: text.chars().take(64).collect() })?;
        Ok(Self::Log { term, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_text_is_read_back() {
        for commit in [Commit::Eventual, Commit::Log { term: 3, index: 99 }] {
            assert_eq!(commit.to_string().parse(), Ok(commit));
        }
        assert_eq!(Commit::Log { term: 3, index: 99 }.to_string(), "3-99");
        assert!("3".parse::<Commit>().is_err());
        assert!("3-x".parse::<Commit>().is_err());
    }
}

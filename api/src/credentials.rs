//! Who may use the API, and what for, as the configuration says it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Users, their passwords, and the rules for their tokens.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The password of each user, or its hash: argon2 as a PHC string, or bcrypt (`$2a$`, `$2b$`, `$2y$`).
    pub passwords: BTreeMap<String, String>,
    /// What users may do; who is not named here may do everything.
    pub scopes: BTreeMap<String, Scopes>,
    /// How long tokens live at most, and those for which nothing else is asked; none: for ever.
    pub token_lifetime: Option<Duration>,
    /// Where revocations and the secret of tokens outlive the process; none: they do not.
    pub files: Option<Arc<dyn TokenFiles>>,
}

impl Credentials {
    /// Users who may do everything, with tokens as the original has them.
    pub fn new(passwords: BTreeMap<String, String>) -> Self {
        Self { passwords, ..Self::default() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("users", &self.passwords.len()).finish_non_exhaustive()
    }
}

/// What tokens need on the disk. The calls may block.
pub trait TokenFiles: Send + Sync + 'static {
    /// The revocations that [`save`](Self::save) was given last; nothing if it was never called.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the revocations; after a crash they are the old or the new ones.
    fn save(&self, content: &[u8]) -> io::Result<()>;

    /// The secret with which tokens of users with hashed passwords are signed; made at the first call.
    fn secret(&self) -> io::Result<TokenSecret>;
}

/// What makes the hash of a password a key of tokens: who has read the hash alone cannot make any.
pub type TokenSecret = [u8; 32];

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that only looks.
    Read,
    /// What changes the pinset: add, pin, unpin, recover.
    Pin,
    /// What changes the cluster or its nodes: members, garbage collection.
    Admin,
}

impl Scope {
    /// All of them.
    pub const EVERY: [Self; 3] = [Self::Read, Self::Pin, Self::Admin];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pin => "pin",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Pin => 2,
            Self::Admin => 4,
        }
    }
}

/// A word that is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is read, pin or admin")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        Self::EVERY.into_iter().find(|scope| scope.as_str() == word).ok_or(UnknownScope)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Whether `scope` is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of `other` are among them.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes among `words`; what is none counts for nothing.
    pub(crate) fn among<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        words.filter_map(|word| word.parse().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Words with spaces between them.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = Scope::EVERY.into_iter().filter(|scope| self.has(*scope)).map(Scope::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sets_of_words() {
        let some: Scopes = [Scope::Read, Scope::Admin].into_iter().collect();
        assert_eq!(some.to_string(), "read admin");
        assert_eq!(Scopes::among("admin openid read".split(' ')), some);
        assert!(some.has(Scope::Admin) && !some.has(Scope::Pin));
        assert!(Scopes::ALL.contains(some) && !some.contains(Scopes::ALL));
        assert_eq!(Scopes::ALL.and(some), some);
        assert_eq!(Scope::EVERY.into_iter().collect::<Scopes>(), Scopes::ALL);
        assert_eq!("Read".parse::<Scope>(), Err(UnknownScope));
    }
}

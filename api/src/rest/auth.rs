//! Who may ask: users with their passwords.
//!
//! **Invariant:** how long a refusal takes does not depend on how much of a name or password was right: all users are
//! compared, by digests of equal length.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Credentials;
use crate::error::Failure;
use crate::reply::{self, Body};

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted IPFS Cluster API\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\"");
const BAD_TOKEN: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"");

type Fingerprint = [u8; 32];

/// The users, as digests.
pub(super) struct Users(Vec<(Fingerprint, Fingerprint)>);

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It names nobody.
    Nobody,
    /// No user has this name and password.
    Mismatch,
    /// It shows a token; none are given out yet.
    Token,
}

impl Users {
    /// Users that may ask. One without a name or without a password never matches.
    pub(super) fn new(credentials: &Credentials) -> Self {
        let usable = credentials.0.iter().filter(|(user, password)| !user.is_empty() && !password.is_empty());
        Self(usable.map(|(user, password)| (fingerprint(user.as_bytes()), fingerprint(password.as_bytes()))).collect())
    }

    /// Whether the head of a request names a user.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Denied::Nobody)?;
        let (scheme, shown) = text.split_once(' ').ok_or(Denied::Nobody)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::Token);
        }
        let pair =
            STANDARD.decode(shown).ok().filter(|_| scheme.eq_ignore_ascii_case("basic")).ok_or(Denied::Nobody)?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(Denied::Nobody)?;
        let (user, password) = (fingerprint(&pair[..colon]), fingerprint(&pair[colon + 1..]));
        let known = self.0.iter().fold(Choice::from(0), |found, (known_user, known_password)| {
            found | (known_user.ct_eq(&user) & known_password.ct_eq(&password))
        });
        if bool::from(known) { Ok(()) } else { Err(Denied::Mismatch) }
    }
}

impl Denied {
    /// The answer.
    pub(super) fn answer(self) -> Response<Body> {
        let (message, challenges) = match self {
            Self::Nobody => ("unauthorized: no auth provided", vec![BEARER, BASIC]),
            Self::Mismatch => ("unauthorized: access denied", vec![BASIC]),
            Self::Token => ("unauthorized: invalid token", vec![BAD_TOKEN]),
        };
        let mut response = reply::failure(&Failure::new(StatusCode::UNAUTHORIZED, message));
        for challenge in challenges {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn fingerprint(text: &[u8]) -> Fingerprint {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let pairs = [("ann", "one:two"), ("bob", "three"), ("", "four"), ("eve", "")];
        Users::new(&Credentials(pairs.map(|(user, word)| (user.to_owned(), word.to_owned())).into()))
    }

    fn check(authorization: &str) -> Result<(), Denied> {
        users().check(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())]))
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_user_is_known_by_name_and_password_together() {
        assert_eq!(check(&basic("ann:one:two")), Ok(()));
        assert_eq!(check(&basic("bob:three").replace("Basic", "bAsIc")), Ok(()));
        for pair in
            ["ann:three", "bob:one:two", "ann:one:tw", "ann:one:twoo", "Ann:one:two", "ann:", ":four", "eve:", ":"]
        {
            assert_eq!(check(&basic(pair)), Err(Denied::Mismatch), "{pair}");
        }
    }

    #[test]
    fn what_is_no_password_is_not_compared() {
        assert_eq!(users().check(&HeaderMap::new()), Err(Denied::Nobody));
        for text in ["", "Basic", "Basic !", "Digest YTpi", &basic("ann")] {
            assert_eq!(check(text), Err(Denied::Nobody), "{text}");
        }
        assert_eq!(check("bearer abc"), Err(Denied::Token));
    }
}

//! Who asks: users with their passwords or tokens.
//!
//! **Invariant:** how long a refusal takes does not depend on how much of a name or password was right: all users are
//! compared, by digests of equal length, and where there are hashes a name that nobody has costs one as well.

mod jwt;
mod passwords;
mod revocations;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cluster_core::ports::Clock;
use cluster_types::{ErrorClass, GoDuration, Timestamp, WireError};
use hmac::{Hmac, KeyInit as _};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::credentials::{Credentials, Scope, Scopes, TokenSecret};
use crate::error::{ApiError, Failure};
use crate::reply::{self, Body};

use jwt::{Claims, Instant, Unverified};
use passwords::{Busy, Hashes, Password};
use revocations::Revocations;

pub use passwords::hash_password;

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted IPFS Cluster API\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\"");
const BAD_TOKEN: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"");
/// How long a token lives that is made for one request.
const SHORT: Duration = Duration::from_secs(60);
/// How far a clock may go back, in milliseconds, and tokens are still given out after a revocation.
const LEAP: i64 = 1000;
/// The number of no user.
const NOBODY: u64 = u64::MAX;

type Fingerprint = [u8; 32];

/// The users.
pub(crate) struct Users {
    known: Vec<User>,
    hashes: Hashes,
    revocations: Revocations,
    lifetime: Option<Duration>,
    clock: Arc<dyn Clock>,
}

struct User {
    name: Arc<str>,
    digest: Fingerprint,
    password: Password,
    scopes: Scopes,
}

/// Who asks, and what for at most. The access log finds it among the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The user's name.
    pub(crate) name: Arc<str>,
    /// Its place among the users.
    user: usize,
    /// What may be asked for.
    pub(super) scopes: Scopes,
    /// Whether a token was shown that allows less than its user may do.
    is_narrowed: bool,
    /// When the token that was shown ends, in milliseconds since the Unix epoch.
    expires: Option<i64>,
}

/// What a token is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How long it lives; as long as configured if it is not said.
    pub(super) lifetime: Option<Duration>,
    /// What it may be used for; all that the caller may do if it is not said.
    pub(super) scopes: Option<Scopes>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It names nobody.
    Nobody,
    /// No user has this name and password.
    Mismatch,
    /// Its token does not count.
    Token,
    /// Too many passwords are being checked to check this one.
    Busy,
}

impl From<Busy> for Denied {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Users that may ask. One without a name or without a password never matches.
    pub(crate) fn new(credentials: &Credentials, clock: Arc<dyn Clock>) -> Result<Self, ApiError> {
        let mut known = Vec::new();
        let usable = credentials.passwords.iter().filter(|(name, password)| !name.is_empty() && !password.is_empty());
        let mut secret = None;
        for (name, password) in usable {
            let mut password =
                Password::new(password).map_err(|cause| ApiError::Password { user: name.clone(), cause })?;
            if password.is_hash() {
                let known = secret.map_or_else(|| token_secret(credentials), Ok)?;
                secret = Some(known);
                password.sign_with(&known);
            }
            let scopes = credentials.scopes.get(name).copied().unwrap_or(Scopes::ALL);
            known.push(User { name: name.as_str().into(), digest: fingerprint(name.as_bytes()), password, scopes });
        }
        let revocations =
            Revocations::load(credentials.files.clone()).map_err(|cause| ApiError::Revocations { cause })?;
        Ok(Self { known, hashes: Hashes::new(), revocations, lifetime: credentials.token_lifetime, clock })
    }

    /// Whom the head of a request names.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Denied::Nobody)?;
        let (scheme, shown) = text.split_once(' ').ok_or(Denied::Nobody)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.of_token(shown.trim()).ok_or(Denied::Token);
        }
        let pair =
            STANDARD.decode(shown).ok().filter(|_| scheme.eq_ignore_ascii_case("basic")).ok_or(Denied::Nobody)?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(Denied::Nobody)?;
        let user = self.of_password(&pair[..colon], &pair[colon + 1..]).await?;
        let User { name, scopes, .. } = &self.known[user];
        Ok(Caller { name: Arc::clone(name), user, scopes: *scopes, is_narrowed: false, expires: None })
    }

    /// The user with a name and a password.
    async fn of_password(&self, name: &[u8], password: &[u8]) -> Result<usize, Denied> {
        let (name, digest) = (fingerprint(name), fingerprint(password));
        let plain = self.find(|user| {
            let right = user.password.plain_digest().map_or(Choice::from(0), |known| known.ct_eq(&digest));
            right & user.digest.ct_eq(&name)
        });
        if let Some(user) = plain {
            return Ok(user);
        }
        // Where nobody has a hash there is nothing more to compare.
        let is_hashed = |user: &User| user.password.plain_digest().is_none();
        let first = self.known.iter().position(is_hashed).ok_or(Denied::Mismatch)?;
        let named = self.find(|user| user.digest.ct_eq(&name) & Choice::from(u8::from(is_hashed(user))));
        let judged = named.unwrap_or(first);
        if self.hashes.knows(judged, password) && named.is_some() {
            return Ok(judged);
        }
        let right = self.hashes.verify(&self.known[judged].password, password).await?;
        if !right || named.is_none() {
            return Err(Denied::Mismatch);
        }
        self.hashes.remember(judged, password);
        Ok(judged)
    }

    /// The user for whom `matches` holds, found in a time that does not depend on which it is.
    fn find(&self, matches: impl Fn(&User) -> Choice) -> Option<usize> {
        let numbered = (0u64..).zip(&self.known);
        let found =
            numbered.fold(NOBODY, |found, (number, user)| u64::conditional_select(&found, &number, matches(user)));
        usize::try_from(found).ok().filter(|user| *user < self.known.len())
    }

    /// The user of a token, if it counts now.
    fn of_token(&self, token: &str) -> Option<Caller> {
        let token = Unverified::read(token).ok()?;
        let name = fingerprint(token.user().as_bytes());
        let user = self.find(|user| user.digest.ct_eq(&name));
        // Nobody's token is compared as well, with a key that nobody has.
        let nobody = [0; 32];
        let claims = token.verified(user.map_or(&nobody, |user| self.known[user].password.token_key())).ok()?;
        let user = user?;
        let User { name, scopes, .. } = &self.known[user];
        let is_revoked =
            self.revocations.until(name).is_some_and(|until| claims.iat.is_none_or(|made| made.0 <= until));
        if is_revoked || !claims.are_valid_at(self.now()) || !self.ends_in_time(&claims) {
            return None;
        }
        let narrowed = claims.scope.as_deref().map(|words| Scopes::among(words.split(' ')));
        Some(Caller {
            name: Arc::clone(name),
            user,
            scopes: narrowed.map_or(*scopes, |narrowed| narrowed.and(*scopes)),
            is_narrowed: narrowed.is_some(),
            expires: claims.exp.map(|end| end.0),
        })
    }

    /// Whether a token lives no longer than tokens may, also one that was made before that was said.
    fn ends_in_time(&self, claims: &Claims) -> bool {
        let Some(lifetime) = self.lifetime else { return true };
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        match claims.iat {
            Some(made) => self.now().saturating_sub(made.0) < lifetime,
            None => claims.exp.is_some_and(|end| end.0.saturating_sub(self.now()) <= lifetime),
        }
    }

    /// A token for who asks: it allows no more than the caller may do, and lives no longer than the token that was shown.
    pub(super) fn token(&self, caller: &Caller, wish: Wish) -> Result<String, Failure> {
        if !wish.scopes.is_none_or(|scopes| caller.scopes.contains(scopes)) {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                format!("forbidden: a token cannot allow more than its user may do: {}", caller.scopes),
            ));
        }
        if let (Some(asked), Some(most)) = (wish.lifetime, self.lifetime)
            && asked > most
        {
            let most = GoDuration(most);
            return Err(Failure::bad_request(format!("expire-in must not be longer than token_lifetime, {most}")));
        }
        let User { name, password, .. } = &self.known[caller.user];
        let revoked = self.revocations.until(name);
        if revoked.is_some_and(|until| until > self.now().saturating_add(LEAP)) {
            let message = "the clock of this peer is behind the moment up to which tokens are revoked: set it right";
            return Err(WireError::new(ErrorClass::Unavailable, message).into());
        }
        let end =
            wish.lifetime.or(self.lifetime).map(|lifetime| self.clock.now().saturating_add(lifetime).unix_millis());
        let end = end.into_iter().chain(caller.expires).min();
        let scopes = wish.scopes.or(caller.is_narrowed.then_some(caller.scopes));
        let mut claims = Claims::of(name);
        if end.is_some() || scopes.is_some() || revoked.is_some() {
            // A token of the same moment must not be revoked from its beginning.
            let now = self.now().max(revoked.map_or(i64::MIN, |until| until.saturating_add(1)));
            claims.iat = Some(Instant(now));
            claims.exp = end.map(Instant);
            claims.jti = Some(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()));
            claims.scope = scopes.map(|scopes| scopes.to_string());
        }
        jwt::signed(&claims, password.token_key()).map_err(|error| reply::unwritable(&error))
    }

    /// Revokes all tokens of the user who asks. A token that allows less than its user may do cannot.
    pub(super) async fn revoke(&self, caller: &Caller) -> Result<(), WireError> {
        self.revocations.revoke(&caller.name, self.now()).await.map_err(|error| {
            let message = format!("the tokens are revoked, but only until the next start: {error}");
            WireError::new(ErrorClass::Fatal, message)
        })
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_millis()
    }
}

impl Caller {
    /// Whether this is the user, or a token that stands for all of the user.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_narrowed
    }
}

impl Denied {
    /// The answer; `write` says how failures are written.
    pub(crate) fn answer(self, write: impl Fn(&Failure) -> Response<Body>) -> Response<Body> {
        let (message, challenges) = match self {
            Self::Nobody => ("unauthorized: no auth provided", vec![BEARER, BASIC]),
            Self::Mismatch => ("unauthorized: access denied", vec![BASIC]),
            Self::Token => ("unauthorized: invalid token", vec![BAD_TOKEN]),
            Self::Busy => {
                let error = WireError::new(ErrorClass::Unavailable, "too many passwords are checked, try again later");
                return write(&Failure::from(error));
            }
        };
        let mut response = write(&Failure::new(StatusCode::UNAUTHORIZED, message));
        for challenge in challenges {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A token with which to look, for requests that start within a minute of `now`, for who has the password, or its hash and
/// the secret, as the peer has them. Nothing for a user who can never be let in.
pub fn short_token(
    user: &str,
    password: &str,
    secret: impl FnOnce() -> Option<TokenSecret>,
    now: Timestamp,
) -> Option<String> {
    if user.is_empty() || password.is_empty() {
        return None;
    }
    let mut password = Password::new(password).ok()?;
    if password.is_hash() {
        password.sign_with(&secret()?);
    }
    let claims = Claims {
        iat: Some(Instant(now.unix_millis())),
        exp: Some(Instant(now.saturating_add(SHORT).unix_millis())),
        scope: Some(Scope::Read.as_str().to_owned()),
        ..Claims::of(user)
    };
    jwt::signed(&claims, password.token_key()).ok()
}

fn token_secret(credentials: &Credentials) -> Result<TokenSecret, ApiError> {
    let made = credentials.files.as_ref().map_or_else(|| Ok(rand::random()), |files| files.secret());
    made.map_err(|cause| ApiError::TokenSecret { cause })
}

fn fingerprint(text: &[u8]) -> Fingerprint {
    Sha256::digest(text).into()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests;

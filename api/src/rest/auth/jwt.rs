//! JSON Web Tokens as this API uses them: HMAC with the user's password as the key (RFC 7519, RFC 7515, RFC 7518 §3.2).
//!
//! Nothing of a token is believed before its signature was checked, but the name of the user whose key it is.
//!
//! **Invariant:** no other algorithm is accepted, `none` least of all, whatever the token says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Sha256, Sha384, Sha512};

/// The longest token that is looked at, in bytes: many times what is given out, whatever the head of a request may be.
const MAX_TOKEN: usize = 8 * 1024;
/// The head of every token that is given out, byte by byte as the original has it.
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A token that nobody can have made, or that this program does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// What a token says; times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The user.
    pub(super) iss: String,
    /// The first moment at which it is not valid any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<Instant>,
    /// The first moment at which it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<Instant>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<Instant>,
    /// Its name, so that two of them can be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    /// What it may be used for: words with spaces between them; none: for all that its user may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
}

impl Claims {
    /// Claims that say who it is and nothing else.
    pub(super) fn of(user: &str) -> Self {
        Self { iss: user.to_owned(), exp: None, nbf: None, iat: None, jti: None, scope: None }
    }

    /// Whether the token may be used at a moment, in milliseconds since the Unix epoch.
    pub(super) fn are_valid_at(&self, now: i64) -> bool {
        self.exp.is_none_or(|end| now < end.0)
            && self.nbf.is_none_or(|start| now >= start.0)
            && self.iat.is_none_or(|made| now >= made.0)
    }
}

/// Milliseconds since the Unix epoch; in a token, seconds with a fraction where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(pub(super) i64);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            serializer.serialize_i64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What no i64 holds becomes its nearest end.
        f64::deserialize(deserializer).map(|seconds| Self((seconds * 1000.0).round() as i64))
    }
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    /// Extensions that must be understood (RFC 7515 §4.1.11); none is.
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    fn named(name: &str) -> Result<Self, Invalid> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "HS384" => Ok(Self::Hs384),
            "HS512" => Ok(Self::Hs512),
            _ => Err(Invalid),
        }
    }

    /// Compares in a time that does not depend on where the difference is.
    fn verifies(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        macro_rules! verifies {
            ($hash:ty) => {
                Hmac::<$hash>::new_from_slice(key)
                    .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok())
            };
        }
        match self {
            Self::Hs256 => verifies!(Sha256),
            Self::Hs384 => verifies!(Sha384),
            Self::Hs512 => verifies!(Sha512),
        }
    }
}

/// A token whose signature is not checked yet.
pub(super) struct Unverified<'a> {
    algorithm: Algorithm,
    message: &'a [u8],
    signature: Vec<u8>,
    claims: Claims,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    pub(super) fn read(token: &'a str) -> Result<Self, Invalid> {
        if token.len() > MAX_TOKEN {
            return Err(Invalid);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Invalid)?;
        let (head, claims) = message.split_once('.').ok_or(Invalid)?;
        let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_| Invalid)?;
        if head.crit.is_some() {
            return Err(Invalid);
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Invalid)?;
        let algorithm = Algorithm::named(&head.alg)?;
        Ok(Self { algorithm, message: message.as_bytes(), signature: decode(signature)?, claims })
    }

    /// Whose key it says to be signed with.
    pub(super) fn user(&self) -> &str {
        &self.claims.iss
    }

    /// The claims, if the token was signed with `key`.
    pub(super) fn verified(self, key: &[u8]) -> Result<Claims, Invalid> {
        let signed = self.algorithm.verifies(key, self.message, &self.signature);
        if signed { Ok(self.claims) } else { Err(Invalid) }
    }
}

/// A token of these claims, signed with HS256.
pub(super) fn signed(claims: &Claims, key: &[u8]) -> Result<String, serde_json::Error> {
    let claims = serde_json::to_vec(claims)?;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEAD), URL_SAFE_NO_PAD.encode(claims));
    let mac = super::mac(key).chain_update(message.as_bytes()).finalize();
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.into_bytes())))
}

fn decode(part: &str) -> Result<Vec<u8>, Invalid> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.1: token and key.
    const RFC_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const RFC_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

    fn claims(token: &str, key: &[u8]) -> Result<Claims, Invalid> {
        Unverified::read(token)?.verified(key)
    }

    #[test]
    fn the_example_of_the_standard_is_understood() {
        let read = claims(RFC_TOKEN, &decode(RFC_KEY).unwrap()).unwrap();
        assert_eq!((read.iss.as_str(), read.exp), ("joe", Some(Instant(1_300_819_380_000))));
        assert!(read.are_valid_at(1_300_819_379_999) && !read.are_valid_at(1_300_819_380_000));
    }

    #[test]
    fn a_token_is_that_of_the_original_byte_by_byte() {
        let token = signed(&Claims::of("ann"), b"secret").unwrap();
        assert!(token.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ."), "{token}");
        assert_eq!(claims(&token, b"secret"), Ok(Claims::of("ann")));
        assert_eq!(claims(&token, b"Secret"), Err(Invalid));
    }

    #[test]
    fn fractions_of_a_second_survive() {
        let made =
            Claims { iat: Some(Instant(1_800_000_000_123)), exp: Some(Instant(1_900_000_000_000)), ..Claims::of("x") };
        let token = signed(&made, b"k").unwrap();
        assert_eq!(claims(&token, b"k"), Ok(made.clone()));
        assert!(!made.are_valid_at(1_800_000_000_122) && made.are_valid_at(1_800_000_000_123));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token = signed(&Claims::of("ann"), b"k").unwrap();
        let [head, body, tag]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let with = |head: &str, claims: &str| {
            format!("{}.{}.{tag}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims))
        };
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            &format!("{head}.{body}"),
            &format!("{head}.{body}."),
            &format!("{head}.{body}.{tag}="),
            &format!("{head}.{body}.{tag}.{tag}"),
            &format!("{head}.{body}.{}", &tag[..tag.len() - 2]),
            &with(r#"{"alg":"none"}"#, r#"{"iss":"ann"}"#),
            &with(r#"{"alg":"hs256"}"#, r#"{"iss":"ann"}"#),
            &with(r#"{"alg":"HS256","crit":["b64"]}"#, r#"{"iss":"ann"}"#),
            &with(HEAD, r#"{"iss":"ann","iss":"bob"}"#),
            &with(HEAD, r#"{"iss":"ann","exp":"tomorrow"}"#),
            &with(HEAD, r#"{"iss":"ann","exp":1e999}"#),
            &with(HEAD, r#"{"iss":7}"#),
            &with(HEAD, "{}"),
            &with(HEAD, &"[".repeat(5000)),
            &"x".repeat(MAX_TOKEN + 1),
        ] {
            assert_eq!(claims(bad, b"k"), Err(Invalid), "{bad}");
        }
        assert!(claims(&token, b"k").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn nothing_counts_but_what_was_signed(head in ".{0,40}", body in ".{0,60}", tag in "[A-Za-z0-9_-]{0,50}", cut in 0usize..120) {
            let made = signed(&Claims::of("ann"), b"k").unwrap();
            let [head, body] = [head, body].map(|part| URL_SAFE_NO_PAD.encode(part));
            let mut changed = made.clone().into_bytes();
            let place = cut % changed.len();
            changed[place] ^= 1;
            let changed = String::from_utf8_lossy(&changed).into_owned();
            let bare = URL_SAFE_NO_PAD.encode(HEAD);
            for token in [format!("{head}.{body}.{tag}"), format!("{bare}.{body}.{tag}"), made[..place].to_owned(), changed] {
                proptest::prop_assert_eq!(claims(&token, b"k"), Err(Invalid));
            }
        }
    }
}

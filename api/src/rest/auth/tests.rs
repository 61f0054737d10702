//! Users, passwords and tokens without a server.

use std::sync::atomic::{AtomicI64, Ordering};

use cluster_types::Timestamp;
use sha2::{Sha384, Sha512};

use super::*;
use crate::credentials::Scope;

/// A clock that is moved by hand, in milliseconds.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_nanos(i128::from(self.0.load(Ordering::Relaxed)) * 1_000_000)
    }
}

const START: i64 = 1_800_000_000_000;

fn with(change: impl FnOnce(&mut Credentials)) -> (Users, Arc<Hands>) {
    let pairs = [("ann", "one:two"), ("bob", "three"), ("", "four"), ("eve", "")];
    let mut credentials = Credentials::new(pairs.map(|(user, word)| (user.to_owned(), word.to_owned())).into());
    change(&mut credentials);
    let clock = Arc::new(Hands(AtomicI64::new(START)));
    (Users::new(&credentials, Arc::clone(&clock) as _).unwrap(), clock)
}

fn users() -> Users {
    with(|_| {}).0
}

async fn ask(users: &Users, authorization: &str) -> Result<Caller, Denied> {
    users.check(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())])).await
}

async fn name(users: &Users, authorization: &str) -> Result<String, Denied> {
    ask(users, authorization).await.map(|caller| caller.name.to_string())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// A token made by somebody who is not this program.
fn made(alg: &str, claims: &str, key: &[u8]) -> String {
    let parts = [format!("{{\"alg\":\"{alg}\"}}"), claims.to_owned()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = parts.join(".");
    macro_rules! tag {
        ($hash:ty) => {{
            use hmac::Mac as _;
            let mac = Hmac::<$hash>::new_from_slice(key).unwrap().chain_update(message.as_bytes());
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        }};
    }
    let tag = match alg {
        "none" => String::new(),
        "HS384" => tag!(Sha384),
        "HS512" => tag!(Sha512),
        _ => tag!(Sha256),
    };
    format!("Bearer {message}.{tag}")
}

#[tokio::test]
async fn a_user_is_known_by_name_and_password_together() {
    let users = users();
    assert_eq!(name(&users, &basic("ann:one:two")).await, Ok("ann".to_owned()));
    assert_eq!(name(&users, &basic("bob:three").replace("Basic", "bAsIc")).await, Ok("bob".to_owned()));
    for pair in ["ann:three", "bob:one:two", "ann:one:tw", "ann:one:twoo", "Ann:one:two", "ann:", ":four", "eve:", ":"]
    {
        assert_eq!(name(&users, &basic(pair)).await, Err(Denied::Mismatch), "{pair}");
    }
}

#[tokio::test]
async fn what_is_no_password_is_not_compared() {
    let users = users();
    assert_eq!(users.check(&HeaderMap::new()).await.unwrap_err(), Denied::Nobody);
    for text in ["", "Basic", "Basic !", "Digest YTpi", &basic("ann")] {
        assert_eq!(name(&users, text).await, Err(Denied::Nobody), "{text}");
    }
    assert_eq!(name(&users, "bearer abc").await, Err(Denied::Token));
}

#[tokio::test]
async fn tokens_of_all_three_hashes_count_and_no_others() {
    let users = users();
    for alg in ["HS256", "HS384", "HS512"] {
        let token = made(alg, r#"{"iss":"bob"}"#, b"three");
        assert_eq!(name(&users, &token).await, Ok("bob".to_owned()), "{alg}");
        assert_eq!(name(&users, &token.replace("Bearer", "bEARER")).await, Ok("bob".to_owned()));
    }
    let good = made("HS256", r#"{"iss":"bob"}"#, b"three");
    let moved = made("HS512", r#"{"iss":"bob"}"#, b"three");
    for (bad, why) in [
        (made("none", r#"{"iss":"bob"}"#, b""), "none"),
        (made("RS256", r#"{"iss":"bob"}"#, b"three"), "another algorithm"),
        (made("HS256", r#"{"iss":"ann"}"#, b"three"), "the key of another user"),
        (made("HS256", r#"{"iss":"nobody"}"#, b"three"), "an unknown user"),
        (made("HS256", r#"{"iss":"nobody"}"#, &[0; 32]), "an unknown user, and a key of zeros"),
        (made("HS256", r#"{"iss":""}"#, b"four"), "a user without a name"),
        (made("HS256", r#"{"iss":"eve"}"#, b""), "a user without a password"),
        (made("HS256", r#"{"sub":"bob"}"#, b"three"), "no issuer"),
        (good.replace("Bearer ", "Bearer x"), "tampered"),
        (format!("{good}A"), "a longer signature"),
        (good[..good.len() - 1].to_owned(), "a shorter signature"),
        (
            format!("{}.{}", &good[..good.rfind('.').unwrap()], &moved[moved.rfind('.').unwrap() + 1..]),
            "a swapped signature",
        ),
    ] {
        assert_eq!(name(&users, &bad).await, Err(Denied::Token), "{why}");
    }
}

#[tokio::test]
async fn times_of_a_token_are_heeded() {
    let users = users();
    for (claims, counts) in [
        (r#""exp":1800000001"#, true),
        (r#""exp":1800000000.001"#, true),
        (r#""exp":1800000000"#, false),
        (r#""exp":-1"#, false),
        (r#""exp":null"#, true),
        (r#""nbf":1800000000"#, true),
        (r#""nbf":1800000001"#, false),
        (r#""iat":1800000000"#, true),
        (r#""iat":1800000001"#, false),
        (r#""exp":1e300,"nbf":-1e300,"iat":0"#, true),
    ] {
        let token = made("HS256", &format!("{{\"iss\":\"bob\",{claims}}}"), b"three");
        assert_eq!(name(&users, &token).await.is_ok(), counts, "{claims}");
    }
}

#[tokio::test]
async fn a_token_that_is_given_out_counts_until_its_end() {
    let (users, clock) = with(|_| {});
    let bob = ask(&users, &basic("bob:three")).await.unwrap();
    let plain = users.token(&bob, Wish::default()).unwrap();
    let body = URL_SAFE_NO_PAD.encode(r#"{"iss":"bob"}"#);
    assert!(plain.starts_with(&format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{body}.")), "{plain}");
    let wish = Wish { lifetime: Some(Duration::from_secs(60)), scopes: None };
    let token = format!("Bearer {}", users.token(&bob, wish).unwrap());
    let shown = ask(&users, &token).await.unwrap();
    assert!(shown.is_whole() && shown.scopes == Scopes::ALL);
    // Nobody lives longer by asking again.
    let again = format!("Bearer {}", users.token(&shown, Wish::default()).unwrap());
    clock.0.fetch_add(59_999, Ordering::Relaxed);
    assert!(ask(&users, &token).await.is_ok() && ask(&users, &again).await.is_ok());
    clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(name(&users, &token).await, Err(Denied::Token));
    assert_eq!(name(&users, &again).await, Err(Denied::Token));
    assert!(ask(&users, &format!("Bearer {plain}")).await.is_ok());
}

#[tokio::test]
async fn the_configured_lifetime_is_the_usual_and_the_longest() {
    let (users, clock) = with(|credentials| credentials.token_lifetime = Some(Duration::from_secs(3600)));
    let bob = ask(&users, &basic("bob:three")).await.unwrap();
    let token =
        |seconds: Option<u64>| users.token(&bob, Wish { lifetime: seconds.map(Duration::from_secs), scopes: None });
    let usual = format!("Bearer {}", token(None).unwrap());
    assert!(token(Some(3600)).is_ok());
    let refused = token(Some(3601)).unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(refused.message.contains("1h0m0s"), "{}", refused.message);
    clock.0.fetch_add(3_599_999, Ordering::Relaxed);
    assert!(ask(&users, &usual).await.is_ok());
    clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(name(&users, &usual).await, Err(Denied::Token));
}

#[tokio::test]
async fn what_is_revoked_counts_no_more_and_what_comes_after_does() {
    let (users, clock) = with(|_| {});
    let bob = ask(&users, &basic("bob:three")).await.unwrap();
    let plain = format!("Bearer {}", users.token(&bob, Wish::default()).unwrap());
    let before = made("HS256", r#"{"iss":"bob","iat":1800000000}"#, b"three");
    let of_ann = made("HS256", r#"{"iss":"ann"}"#, b"one:two");
    clock.0.fetch_add(500, Ordering::Relaxed);
    users.revoke(&bob).await.unwrap();
    assert_eq!(name(&users, &plain).await, Err(Denied::Token), "it does not say when it was made");
    assert_eq!(name(&users, &before).await, Err(Denied::Token));
    assert!(ask(&users, &of_ann).await.is_ok());
    assert!(ask(&users, &basic("bob:three")).await.is_ok());
    clock.0.fetch_add(1, Ordering::Relaxed);
    let after = format!("Bearer {}", users.token(&bob, Wish::default()).unwrap());
    assert!(ask(&users, &after).await.is_ok(), "within the same second");
}

#[tokio::test]
async fn scopes_only_get_narrower() {
    let only = |scopes: &[Scope]| scopes.iter().copied().collect::<Scopes>();
    let (users, _) = with(|credentials| {
        credentials.scopes.insert("bob".to_owned(), [Scope::Read, Scope::Pin].into_iter().collect());
    });
    let ann = ask(&users, &basic("ann:one:two")).await.unwrap();
    let bob = ask(&users, &basic("bob:three")).await.unwrap();
    assert_eq!((ann.scopes, bob.scopes), (Scopes::ALL, only(&[Scope::Read, Scope::Pin])));
    let wish = |scopes: &[Scope]| Wish { lifetime: None, scopes: Some(only(scopes)) };
    assert_eq!(users.token(&bob, wish(&[Scope::Admin])).unwrap_err().status, 403);
    let token = format!("Bearer {}", users.token(&bob, wish(&[Scope::Read])).unwrap());
    let reader = ask(&users, &token).await.unwrap();
    assert!(!reader.is_whole() && reader.scopes == only(&[Scope::Read]));
    assert_eq!(users.token(&reader, wish(&[Scope::Pin])).unwrap_err().status, 403);
    let again = format!("Bearer {}", users.token(&reader, Wish::default()).unwrap());
    assert_eq!(ask(&users, &again).await.unwrap().scopes, only(&[Scope::Read]));
    // A token that somebody made says more than its user may do, or nothing that is known.
    for (words, scopes) in [("read admin", only(&[Scope::Read])), ("openid", only(&[])), ("", only(&[]))] {
        let token = made("HS256", &format!("{{\"iss\":\"bob\",\"scope\":\"{words}\"}}"), b"three");
        assert_eq!(ask(&users, &token).await.unwrap().scopes, scopes, "{words}");
    }
}

#[tokio::test]
async fn hashed_users_are_known_by_their_passwords_and_not_by_their_hashes() {
    let hash = hash_password(b"swordfish").unwrap();
    let (users, _) = with(|credentials| drop(credentials.passwords.insert("dan".to_owned(), hash.clone())));
    for round in 0..2 {
        assert_eq!(name(&users, &basic("dan:swordfish")).await, Ok("dan".to_owned()), "{round}");
        assert_eq!(name(&users, &basic("bob:three")).await, Ok("bob".to_owned()), "{round}");
        for pair in [format!("dan:{hash}"), "dan:three".into(), "nobody:swordfish".into(), "bob:swordfish".into()] {
            assert_eq!(name(&users, &basic(&pair)).await, Err(Denied::Mismatch), "{pair}");
        }
    }
    let dan = ask(&users, &basic("dan:swordfish")).await.unwrap();
    let token = format!("Bearer {}", users.token(&dan, Wish::default()).unwrap());
    assert_eq!(name(&users, &token).await, Ok("dan".to_owned()));
    for key in [b"swordfish".as_slice(), hash.as_bytes(), &[0; 32]] {
        assert_eq!(name(&users, &made("HS256", r#"{"iss":"dan"}"#, key)).await, Err(Denied::Token), "{key:?}");
    }
}

#[test]
fn a_hash_that_is_none_stops_the_start() {
    let credentials = Credentials::new([("dan".to_owned(), "$argon2id$v=19$nonsense".to_owned())].into());
    let error = Users::new(&credentials, Arc::new(Hands(AtomicI64::new(0)))).unwrap_err();
    assert!(matches!(&error, ApiError::Password { user, .. } if user == "dan"), "{error:?}");
    assert!(!format!("{error:?}{error}").contains("nonsense"), "{error:?}");
}

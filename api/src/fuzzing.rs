//! What the fuzzers call: bytes from outside, and what must hold of whatever becomes of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cluster_core::ports::Clock;
use cluster_types::Timestamp;
use futures::stream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use sha2::{Sha256, Sha384, Sha512};

use crate::credentials::Credentials;
use crate::options;
use crate::query::Query;
use crate::rest::auth::Users;
use crate::rest::{added_peer, window};
use cluster_core::add::multipart::{Multipart, MultipartError, PartHead};

/// What ann's tokens are signed with.
const PASSWORD: &str = "secret";

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }
}

/// Runs what waits for nothing from outside.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

/// The query of a request: what is decoded is encoded and decoded to the same, and every reader of it ends.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(query) = Query::parse(text) else { return };
    let encoded: Vec<String> =
        query.pairs().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let again = Query::parse(&encoded.join("&")).expect("what was encoded can be decoded");
    assert!(query.pairs().eq(again.pairs()), "{text:?} became {encoded:?}");
    let _ = options::pin_options(&query, Still.now());
    let _ = options::add_params(&query, Still.now());
    let _ = options::expire_in(&query);
    let _ = window::parse(&query);
    let _ = window::search(&query);
}

fn escaped(text: &str) -> String {
    percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The body of `POST /peers`: whoever it names is named by the printed id too.
pub fn json_body(data: &[u8]) {
    let Ok(peer) = added_peer(data) else { return };
    let printed = serde_json::json!({ "peer_id": peer.to_string() }).to_string();
    assert_eq!(added_peer(printed.as_bytes()).ok(), Some(peer));
}

/// An upload: it reads the same however the network cuts it.
pub fn multipart(data: &[u8]) {
    let whole = now(parts(data, data.len().max(1)));
    for step in [1, 7, 1_000] {
        assert_eq!(now(parts(data, step)), whole, "cut after every {step} bytes");
    }
}

async fn parts(data: &[u8], step: usize) -> (Vec<(PartHead, Vec<u8>)>, Option<MultipartError>) {
    let chunks = stream::iter(data.chunks(step).map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk))));
    let mut reader = Multipart::new(chunks, "B");
    let mut parts = Vec::new();
    let end = loop {
        match reader.next_part().await {
            Ok(None) => break None,
            Err(error) => break Some(error),
            Ok(Some(head)) => parts.push((head, Vec::new())),
        }
        loop {
            match reader.next_data().await {
                Ok(None) => break,
                Err(error) => return (parts, Some(error)),
                Ok(Some(bytes)) => {
                    if let Some((_, content)) = parts.last_mut() {
                        content.extend_from_slice(&bytes);
                    }
                }
            }
        }
    };
    (parts, end)
}

/// A token: whoever is let in by one has it from who knows the password, bit by bit. And claims: whatever a user signs,
/// it lets in nobody else.
pub fn jwt(data: &[u8]) {
    let passwords = BTreeMap::from([("ann".to_owned(), PASSWORD.to_owned()), ("bob".to_owned(), "other".to_owned())]);
    let users = Users::new(&Credentials::new(passwords), Arc::new(Still)).expect("these users can be served");
    let let_in = |token: &[u8]| {
        let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
        now(users.check(&HeaderMap::from_iter([(AUTHORIZATION, value)]))).ok()
    };
    let message = [br#"{"alg":"HS256"}"#.as_slice(), data].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let mac = Hmac::<Sha256>::new_from_slice(PASSWORD.as_bytes()).expect("keys have any length");
    let tag = mac.chain_update(&message).finalize().into_bytes();
    if let Some(caller) = let_in(format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag)).as_bytes()) {
        assert_eq!(&*caller.name, "ann", "nobody else has signed these");
    }

    let Some(caller) = let_in(data) else { return };
    let token = std::str::from_utf8(data).expect("it was a text").trim();
    assert_eq!(&*caller.name, "ann", "nobody else has signed one");
    let (message, tag) = token.rsplit_once('.').expect("a token has three parts");
    let tag = URL_SAFE_NO_PAD.decode(tag).expect("it was decoded");
    assert!(is_signed(message.as_bytes(), &tag), "{token}");
}

fn is_signed(message: &[u8], tag: &[u8]) -> bool {
    macro_rules! fits {
        ($hash:ty) => {
            Hmac::<$hash>::new_from_slice(PASSWORD.as_bytes())
                .expect("keys have any length")
                .chain_update(message)
                .verify_slice(tag)
                .is_ok()
        };
    }
    fits!(Sha256) || fits!(Sha384) || fits!(Sha512)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cluster_core::testing::mutate::ShortRun;

    #[expect(clippy::print_stdout, reason = "a run that fails can be replayed")]
    fn run(name: &str, target: fn(&[u8])) {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        let run = ShortRun::new(rand::random());
        println!("{run:?}");
        run.over(&corpus, target);
    }

    #[test]
    fn queries() {
        run("query", super::query);
    }

    #[test]
    fn json_bodies() {
        run("json-body", super::json_body);
    }

    #[test]
    fn uploads() {
        run("multipart", super::multipart);
    }

    #[test]
    fn tokens() {
        run("jwt", super::jwt);
    }
}

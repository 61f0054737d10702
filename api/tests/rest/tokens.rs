//! Tokens, scopes and hashed passwords over sockets; what is answered to each is in the golden files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_api::{
    ApiError, ApiServer, Credentials, RestConfig, Scope, Scopes, TokenFiles, TokenSecret, hash_password,
};
use cluster_core::ports::SystemClock;

use crate::fake::{CID, Script};
use crate::harness::{World, config, request, status};

/// The password of every user here.
const WORD: &str = "swordfish";

fn users(change: impl FnOnce(&mut Credentials)) -> RestConfig {
    let mut users = Credentials::new(["ann", "bob", "eve"].map(|user| (user.to_owned(), WORD.to_owned())).into());
    change(&mut users);
    RestConfig { credentials: Some(users), clock: Arc::new(SystemClock), ..config() }
}

fn basic(user: &str, word: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{word}")))
}

async fn ask(world: &World, method: &str, target: &str, authorization: &str) -> String {
    world.raw(&request(method, target, authorization, b"")).await
}

/// Asks for a token; the header that shows it.
async fn token(world: &World, query: &str, authorization: &str) -> String {
    let answer = ask(world, "POST", &format!("/token{query}"), authorization).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let token = answer.split("{\"token\":\"").nth(1).unwrap().split('"').next().unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

/// A file without the care that a real one is written with.
struct Plain(PathBuf);

impl TokenFiles for Plain {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => content.map(Some),
        }
    }

    fn save(&self, content: &[u8]) -> io::Result<()> {
        std::fs::write(&self.0, content)
    }

    fn secret(&self) -> io::Result<TokenSecret> {
        Ok([7; 32])
    }
}

#[tokio::test]
async fn revoked_tokens_stay_revoked_over_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("revoked");
    let config = || users(|users| users.files = Some(Arc::new(Plain(file.clone()))));
    let world = World::with(config(), Script::Works).await;
    let (ann, bob) = (basic("ann", WORD), basic("bob", WORD));
    let old = [token(&world, "", &ann).await, token(&world, "?expire-in=1h", &ann).await];
    let of_bob = token(&world, "", &bob).await;
    for shown in old.iter().chain([&of_bob]) {
        assert_eq!(status(&ask(&world, "GET", "/id", shown).await), 200, "{shown}");
    }
    // By one of the tokens that end with it.
    assert_eq!(status(&ask(&world, "DELETE", "/token", &old[1]).await), 204);
    let new = token(&world, "", &ann).await;
    for restarted in [world, World::with(config(), Script::Works).await] {
        for shown in &old {
            let answer = ask(&restarted, "GET", "/id", shown).await;
            assert!(status(&answer) == 401 && answer.contains("unauthorized: invalid token"), "{answer}");
        }
        for shown in [&of_bob, &new, &ann] {
            assert_eq!(status(&ask(&restarted, "GET", "/id", shown).await), 200, "{shown}");
        }
    }
    std::fs::write(&file, "torn").unwrap();
    let bound = ApiServer::bind(config()).await;
    assert!(matches!(bound, Err(ApiError::Revocations { .. })), "{bound:?}");
}

#[tokio::test]
async fn scopes_decide_what_reaches_the_cluster() {
    let config = users(|users| {
        users.scopes.insert("bob".to_owned(), Scopes::from_iter([Scope::Read]));
        users.scopes.insert("eve".to_owned(), Scopes::from_iter([Scope::Pin, Scope::Admin]));
    });
    let world = World::with(config, Script::Works).await;
    let (pin, path) = (format!("/pins/{CID}"), format!("/pins/ipfs/{CID}/a"));
    let recover = format!("/pins/{CID}/recover");
    let peer = "/peers/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let allocation = format!("/allocations/{CID}");
    let reads = ["/id", "/version", "/state", "/events", "/peers", "/allocations", &allocation, "/pins", &pin]
        .into_iter()
        .chain(["/health/graph", "/health/bandwidth", "/health/alerts", "/monitor/metrics", "/monitor/metrics/ping"])
        .map(|target| ("GET", target, Scope::Read));
    let pins = [("POST", &pin), ("DELETE", &pin), ("POST", &path), ("DELETE", &path), ("POST", &recover)]
        .map(|(method, target)| (method, target.as_str(), Scope::Pin));
    let more = [
        ("POST", "/add", Scope::Pin),
        ("POST", "/pins/recover", Scope::Pin),
        ("POST", "/peers", Scope::Admin),
        ("DELETE", peer, Scope::Admin),
        ("POST", "/ipfs/gc", Scope::Admin),
    ];
    for (method, target, scope) in reads.chain(pins).chain(more) {
        for user in ["ann", "bob", "eve"] {
            let may = match user {
                "bob" => scope == Scope::Read,
                "eve" => scope != Scope::Read,
                _ => true,
            };
            let before = world.cluster.calls().len();
            let answer = ask(&world, method, target, &basic(user, WORD)).await;
            assert_eq!(status(&answer) != 403, may, "{user} {method} {target}: {answer}");
            if !may {
                assert_eq!(world.cluster.calls().len(), before, "{user} {method} {target}");
                assert!(
                    answer.ends_with(&format!(
                        "{{\"code\":403,\"message\":\"forbidden: this needs the scope {}\"}}\n",
                        scope.as_str()
                    )),
                    "{answer}"
                );
            }
        }
        let narrow = token(&world, &format!("?scope={}", scope.as_str()), &basic("ann", WORD)).await;
        assert_ne!(status(&ask(&world, method, target, &narrow).await), 403, "{method} {target}");
    }
    for user in ["ann", "bob", "eve"] {
        assert_eq!(status(&ask(&world, "GET", "/health", &basic(user, WORD)).await), 204);
        assert_eq!(status(&ask(&world, "DELETE", "/token", &basic(user, WORD)).await), 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashed_users_are_let_in_while_others_guess() {
    let hash = hash_password(WORD.as_bytes()).unwrap();
    let config = users(|users| drop(users.passwords.insert("dan".to_owned(), hash.clone())));
    let world = Arc::new(World::with(config, Script::Works).await);
    let guesses = (0..40).map(|number| {
        let world = Arc::clone(&world);
        async move {
            let user = ["dan", "nobody"][number % 2];
            ask(&world, "GET", "/id", &basic(user, &format!("guess {number}"))).await
        }
    });
    let known = async {
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(status(&ask(&world, "GET", "/id", &basic("dan", WORD)).await));
            answers.push(status(&ask(&world, "GET", "/id", &basic("ann", WORD)).await));
        }
        answers
    };
    let (guessed, known) = tokio::join!(futures::future::join_all(guesses), known);
    assert_eq!(known, [200; 40]);
    for answer in guessed {
        assert!(answer.contains("unauthorized: access denied"), "{answer}");
    }
    let shown = token(&world, "?expire-in=1h", &basic("dan", WORD)).await;
    assert_eq!(status(&ask(&world, "GET", "/id", &shown).await), 200);
    assert_eq!(status(&ask(&world, "GET", "/id", &basic("dan", &hash)).await), 401, "a hash is no password");
}

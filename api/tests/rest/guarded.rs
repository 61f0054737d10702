//! Who is let in: passwords, TLS, pages; and tasks that die.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::{ApiError, ApiServer, Credentials, RestConfig, TlsFiles};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use crate::fake::{CID, Script};
use crate::harness::{World, config, read_all, request, status};

/// `ann:secret`.
const ANN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
/// `ann:wrong`.
const WRONG: &str = "Authorization: Basic YW5uOndyb25n\r\n";

fn with_password() -> RestConfig {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    RestConfig { credentials: Some(Credentials::new(users)), ..config() }
}

#[tokio::test]
async fn without_a_password_only_the_health_is_told() {
    let world = World::with(with_password(), Script::Works).await;
    let none = world.ask("GET", "/id").await;
    let expected = "Www-Authenticate: Bearer realm=\"Restricted IPFS Cluster API\"\r\n\
        Www-Authenticate: Basic realm=\"Restricted IPFS Cluster API\"\r\n";
    assert!(none.starts_with("HTTP/1.1 401 ") && none.contains(expected), "{none}");
    assert!(none.ends_with("{\"code\":401,\"message\":\"unauthorized: no auth provided\"}\n"), "{none}");
    let wrong = world.raw(&request("POST", &format!("/pins/{CID}"), WRONG, b"")).await;
    assert_eq!(wrong.matches("Www-Authenticate").count(), 1, "{wrong}");
    assert!(wrong.contains("\r\nWww-Authenticate: Basic realm=\"Restricted IPFS Cluster API\"\r\n"), "{wrong}");
    assert!(wrong.contains("unauthorized: access denied"), "{wrong}");
    let token = world.raw(&request("GET", "/id", "Authorization: Bearer a.b.c\r\n", b"")).await;
    let challenge = "Www-Authenticate: Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"\r\n";
    assert!(token.contains(challenge) && token.contains("unauthorized: invalid token"), "{token}");
    for (method, target) in
        [("GET", "/nowhere"), ("GET", "/health/"), ("POST", "/health"), ("HEAD", "/id"), ("POST", "/add")]
    {
        assert_eq!(status(&world.ask(method, target).await), 401, "{method} {target}");
    }
    assert_eq!(status(&world.ask("GET", "/health").await), 204);
    assert_eq!(status(&world.ask("OPTIONS", "/pins").await), 405);
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
    assert_eq!(status(&world.raw(&request("GET", "/id", ANN, b"")).await), 200);
}

#[tokio::test]
async fn an_upload_that_is_not_let_in_gets_to_read_why() {
    let world = World::with(with_password(), Script::Works).await;
    let headers = "Content-Type: multipart/form-data; boundary=B\r\n";
    for (target, code) in [("/add", 401), ("/add/", 401)] {
        let answer = world.raw(&request("POST", target, headers, &vec![b'x'; 900_000])).await;
        assert_eq!(status(&answer), code, "{answer}");
    }
    let headers = format!("{headers}{ANN}");
    for (target, code) in [("/add?x=%zz", 400), ("/add/", 307), ("/add?format=zip", 400)] {
        let answer = world.raw(&request("POST", target, &headers, &vec![b'x'; 900_000])).await;
        assert_eq!(status(&answer), code, "{answer}");
    }
}

#[tokio::test]
async fn a_web_page_may_not_write_and_not_take_over_a_name() {
    let world = World::new(Script::Works).await;
    let pin = format!("/pins/{CID}");
    let page = "Origin: https://evil.example\r\n";
    for (method, target) in [("POST", pin.as_str()), ("DELETE", &pin), ("POST", "/add"), ("POST", "/pins/recover")] {
        let answer = world.raw(&request(method, target, page, b"")).await;
        assert_eq!(status(&answer), 403, "{method} {target}: {answer}");
    }
    let rebound = world.raw(b"GET /allocations HTTP/1.1\r\nHost: evil.example:9094\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&rebound), 403, "{rebound}");
    assert!(rebound.contains("api.restapi.allowed_hosts"), "{rebound}");
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
    assert_eq!(status(&world.raw(&request("POST", &pin, "Origin: http://localhost\r\n", b"")).await), 200);
}

#[tokio::test]
async fn pages_are_told_what_they_may_do_before_they_show_a_password() {
    let world = World::with(with_password(), Script::Works).await;
    let asks = "Origin: https://page.example\r\nAccess-Control-Request-Method: GET\r\n";
    let answer = world.raw(&request("OPTIONS", "/nowhere/", asks, b"")).await;
    assert_eq!(status(&answer), 204, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\naccess-control-allow-origin: *\r\n"), "{answer}");
    let refused = world.raw(&request("GET", "/id", "Origin: https://page.example\r\n", b"")).await;
    assert_eq!(status(&refused), 401);
    assert!(!refused.to_ascii_lowercase().contains("access-control-"), "{refused}");
    assert_eq!(world.cluster.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn the_access_log_has_a_line_for_every_request_and_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let world = World::with(RestConfig { log_file: Some(file.clone()), ..with_password() }, Script::Works).await;
    let log = async |lines: usize| {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                if text.lines().count() >= lines {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap()
    };
    assert_eq!(status(&world.raw(&request("GET", "/version?x=%22", ANN, b"")).await), 200);
    let bytes = format!("{{\"version\":\"{}\"}}\n", cluster_types::API_VERSION).len();
    let served = format!("127.0.0.1 - ann [15/Jan/2027:08:00:00 +0000] \"GET /version?x=%22 HTTP/1.1\" 200 {bytes}\n");
    assert_eq!(log(1).await, served);
    // It may be moved away; what comes later is in a new file.
    std::fs::rename(&file, folder.path().join("access.log.1")).unwrap();
    assert_eq!(status(&world.raw(&request("POST", "/add", WRONG, b"")).await), 401);
    let refused = log(1).await;
    assert!(refused.contains("\"POST /add HTTP/1.1\" 401 "), "{refused}");
    assert_eq!(refused.lines().count(), 1);
    let nowhere = Some(folder.path().join("none/access.log"));
    let bound = ApiServer::bind(RestConfig { log_file: nowhere, ..config() }).await;
    assert!(matches!(bound, Err(ApiError::AccessLog { .. })), "{bound:?}");
}

#[tokio::test]
async fn with_a_certificate_nothing_is_served_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.key_pair.serialize_pem()).unwrap();
    let world = World::with(RestConfig { tls: Some(tls.clone()), ..config() }, Script::Works).await;

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let plain = world.connect().await;
    let mut socket = TlsConnector::from(Arc::new(client)).connect(name, plain).await.unwrap();
    socket.write_all(&request("GET", "/allocations", "", b"")).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("X-Stream-Error: \r\n\r\n"), "{answer}");

    let mut plain = world.connect().await;
    plain.write_all(&request("GET", "/id", "", b"")).await.unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let mut bytes = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut bytes).await);
        bytes
    });
    assert!(!answer.await.unwrap().starts_with(b"HTTP"));
    assert_eq!(world.cluster.calls().iter().filter(|call| *call == "id").count(), 0);

    // Neither a swapped pair nor a missing file is served.
    for wrong in [
        TlsFiles { certificate: tls.key.clone(), ..tls.clone() },
        TlsFiles { key: tls.certificate.clone(), ..tls.clone() },
        TlsFiles { key: folder.path().join("none"), ..tls },
    ] {
        let bound = ApiServer::bind(RestConfig { tls: Some(wrong), ..config() }).await;
        assert!(matches!(bound, Err(ApiError::Tls { .. })), "{bound:?}");
    }
}

#[tokio::test]
async fn what_dies_is_not_told_as_a_success() {
    let world = World::new(Script::Panics).await;
    let listed = world.ask("POST", "/pins/recover").await;
    assert!(listed.contains("X-Stream-Error: it ended without an answer"), "{listed}");
    let body = b"--B\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\nx\r\n--B--\r\n";
    for query in ["", "?stream-channels=false"] {
        let headers = "Content-Type: multipart/form-data; boundary=B\r\n";
        let added = world.raw(&request("POST", &format!("/add{query}"), headers, body)).await;
        assert_eq!(status(&added), 504, "{added}");
    }
}

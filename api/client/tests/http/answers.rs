//! What the client makes of answers, good and bad.

use cluster_client::{ApiFailure, Client, ClientConfig, ClientError, Items, Listing, PinPath};
use cluster_types::{ErrorClass, GlobalPinInfo, PinOptions};
use futures::StreamExt;

use crate::server::{Server, client_of, nobody};

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
const ITEM: &str = "{\"cid\":\"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH\"}\n";
const VERSION: &str = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"version\":\"1.2\"}";

/// An answer in chunks, without its end.
fn chunked(pieces: &[&str]) -> String {
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
    head.to_owned() + &chunks.collect::<String>()
}

async fn statuses(answer: &str) -> (usize, Option<ClientError>) {
    let server = Server::start(&[answer]);
    let mut items: Items<GlobalPinInfo> = server.client().statuses(&Listing::default(), false).await.unwrap();
    let mut read = 0;
    while let Some(item) = items.next().await {
        match item {
            Ok(_) => read += 1,
            Err(error) => return (read, Some(error)),
        }
    }
    (read, None)
}

#[tokio::test]
async fn items_are_read_however_they_are_cut() {
    let (start, end) = ITEM.split_at(20);
    let answer = chunked(&[ITEM, start, end, ITEM.trim_end()]) + "0\r\nX-Stream-Error: \r\n\r\n";
    let (read, error) = statuses(&answer).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(read, 3);
}

#[tokio::test]
async fn an_error_in_the_trailer_is_an_error_of_the_api() {
    let trailer = "0\r\nX-Stream-Error: \r\nX-Stream-Error: peer away\r\nX-Stream-Error: Größe\r\n\r\n";
    let (read, error) = statuses(&(chunked(&[ITEM]) + trailer)).await;
    assert_eq!(read, 1);
    let Some(ClientError::Api(failure)) = error else { panic!("{error:?}") };
    assert_eq!(failure, ApiFailure { code: 500, message: "peer away; Größe".to_owned() });
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_an_error_and_no_short_list() {
    let (read, error) = statuses(&chunked(&[ITEM, ITEM])).await;
    assert_eq!(read, 2);
    assert!(matches!(error, Some(ClientError::BadAnswer { .. })), "{error:?}");
}

#[tokio::test]
async fn an_empty_listing_and_nonsense_are_told_apart() {
    assert!(matches!(statuses("HTTP/1.1 204 No Content\r\n\r\n").await, (0, None)));
    let nonsense = chunked(&["nonsense\n"]) + "0\r\n\r\n";
    assert!(matches!(statuses(&nonsense).await, (0, Some(ClientError::BadAnswer { .. }))));
}

#[tokio::test]
async fn an_object_without_end_is_given_up() {
    let long = "x".repeat(1024 * 1024);
    let answer = chunked(&[long.as_str(); 9]) + "0\r\n\r\n";
    assert!(matches!(statuses(&answer).await, (0, Some(ClientError::BadAnswer { .. }))));
}

#[tokio::test]
async fn an_error_answer_keeps_its_code_and_text() {
    let json = "HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{\"code\":404,\"message\":\"gone\"}";
    let plain = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\noops\n";
    let server = Server::start(&[json, plain]);
    let error = server.client().id().await.unwrap_err();
    assert_eq!(error.as_failure(), ApiFailure { code: 404, message: "gone".to_owned() });
    assert_eq!(error.class(), ErrorClass::NotFound);
    let error = server.client().id().await.unwrap_err();
    assert_eq!(error.as_failure(), ApiFailure { code: 502, message: "oops".to_owned() });
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_one_cannot_be_reached() {
    let server = Server::start(&[VERSION]);
    let client = client_of(vec![nobody(), server.address()]);
    assert_eq!(client.version().await.unwrap(), "1.2");
}

#[tokio::test]
async fn what_an_endpoint_answered_is_not_asked_again_elsewhere() {
    let refusing = Server::start(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]);
    let other = Server::start(&[VERSION]);
    let client = client_of(vec![refusing.address(), other.address()]);
    assert!(matches!(client.version().await, Err(ClientError::Api(_))));
    assert!(other.has_seen_nothing());
}

#[tokio::test]
async fn nobody_to_ask_has_no_code() {
    let error = client_of(vec![nobody(), nobody()]).version().await.unwrap_err();
    assert_eq!(error.as_failure().code, 0);
    assert_eq!(error.class(), ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_pin_is_asked_for_by_path_with_its_options_and_credentials() {
    let server = Server::start(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]);
    let config = ClientConfig {
        basic_auth: Some(("user".to_owned(), "pass".to_owned())),
        ..ClientConfig::new(server.address())
    };
    let mut options = PinOptions { name: "a&b c".to_owned(), replication_factor_min: -1, ..PinOptions::default() };
    options.metadata.insert("k".to_owned(), "v".to_owned());
    let path = PinPath::parse(&format!("{CID}/a b?")).unwrap();
    Client::new(config).unwrap().pin(&path, &options).await.unwrap_err();
    let request = server.request();
    let expected = format!(
        "POST /pins/ipfs/{CID}/a%20b%3F?replication-min=-1&replication-max=0&name=a%26b+c&mode=recursive&shard-size=0\
         &user-allocations=&meta-k=v HTTP/1.1"
    );
    assert_eq!(request.line, expected);
    assert!(request.headers.iter().any(|header| header.starts_with("authorization: basic ")));
}

#[tokio::test]
async fn a_peer_is_added_with_a_token_and_a_user_gets_one() {
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let id = answer(&format!(r#"{{"id":"{peer}","addresses":null,"cluster_peers":null}}"#));
    let server =
        Server::start(&[&id, &answer(r#"{"token":"abc"}"#), "HTTP/1.1 204 No Content\r\n\r\n", &answer("null")]);
    let client = |bearer: &str| {
        let bearer = Some(bearer.to_owned());
        Client::new(ClientConfig { bearer, ..ClientConfig::new(server.address()) }).unwrap()
    };
    let added = client("abc").add_peer(&peer.parse().unwrap()).await.unwrap();
    assert!(added.id.to_base58() == peer && added.cluster_peers.is_empty());
    let request = server.request();
    assert_eq!(
        (request.line.as_str(), request.body),
        ("POST /peers HTTP/1.1", format!(r#"{{"peer_id":"{peer}"}}"#).into())
    );
    assert!(request.headers.contains(&"authorization: bearer abc".to_owned()), "{:?}", request.headers);
    assert_eq!(server.client().token().await.unwrap(), "abc");
    server.client().health().await.unwrap();
    assert!(server.client().bandwidth().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_user_gets_a_token_for_less_and_takes_it_back() {
    let token = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"token\":\"abc\"}";
    let server = Server::start(&[token, token, "HTTP/1.1 204 No Content\r\n\r\n"]);
    let hour = Some(std::time::Duration::from_secs(3600));
    assert_eq!(server.client().token_for(hour, &["read", "pin"]).await.unwrap(), "abc");
    server.client().token_for(None, &[]).await.unwrap();
    server.client().revoke_tokens().await.unwrap();
    let lines = [(); 3].map(|()| server.request().line);
    let expected =
        ["POST /token?expire-in=1h0m0s&scope=read%2Cpin HTTP/1.1", "POST /token HTTP/1.1", "DELETE /token HTTP/1.1"];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_peer_that_is_slow_is_told_from_one_that_is_away() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let timeout = Some(std::time::Duration::from_millis(200));
    let client = Client::new(ClientConfig { timeout, ..ClientConfig::new(address) }).unwrap();
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert_eq!((error.as_failure().code, error.class()), (0, ErrorClass::Unavailable));
}

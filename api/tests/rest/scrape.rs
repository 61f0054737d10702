//! The endpoint for Prometheus over real sockets.

use std::fmt;
use std::time::Duration;

use cluster_api::{ApiError, MetricsServer};
use cluster_core::task::TaskGroup;
use cluster_core::telemetry::Tally;
use cluster_types::{Multiaddr, Protocol, parse_address};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{read_all, read_until, request, status};

const LONG: Duration = Duration::from_secs(20);

struct Endpoint {
    server: MetricsServer,
    tasks: TaskGroup,
}

impl Endpoint {
    async fn start() -> Self {
        let tasks = TaskGroup::new();
        let bound = MetricsServer::bind(parse_address("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
        Self { server: bound.open(&tasks), tasks }
    }

    fn address(&self) -> &Multiaddr {
        &self.server.local_addresses()[0]
    }

    async fn connect(&self) -> TcpStream {
        let port =
            self.address().iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
        TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap()
    }

    async fn ask(&self, method: &str, target: &str) -> String {
        let mut socket = self.connect().await;
        socket.write_all(&request(method, target, "", b"")).await.unwrap();
        read_all(&mut socket).await
    }
}

/// An answer without the line that tells the time.
fn timeless(answer: &str) -> String {
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

#[tokio::test]
async fn numbers_are_shown_as_prometheus_reads_them() {
    let endpoint = Endpoint::start().await;
    assert_eq!(status(&endpoint.ask("GET", "/metrics").await), 503, "while the peer starts");
    let (tally, mut registry) = (Tally::default(), Registry::with_prefix("ipfscluster"));
    registry.register("pins_pin_add", "Total number of IPFS pin requests", tally.clone());
    endpoint.server.begin(registry);
    let expected = |count| {
        let text = "# HELP ipfscluster_pins_pin_add Total number of IPFS pin requests.\n\
                    # TYPE ipfscluster_pins_pin_add counter\n";
        let text = format!("{text}ipfscluster_pins_pin_add {count}\n");
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    };
    assert_eq!(timeless(&endpoint.ask("GET", "/metrics").await), expected(0));
    tally.add(7);
    assert_eq!(timeless(&endpoint.ask("GET", "/metrics?name=x").await), expected(7));
    assert!(endpoint.server.stop(LONG).await);
    assert!(endpoint.tasks.shut_down(LONG).await.is_empty());
}

#[tokio::test]
async fn there_is_nothing_but_the_numbers() {
    let endpoint = Endpoint::start().await;
    endpoint.server.begin(Registry::default());
    for path in ["/", "/metrics/", "/debug/pprof/", "/debug/vars", "/id", "/health", "//metrics"] {
        assert_eq!(status(&endpoint.ask("GET", path).await), 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"] {
        let answer = endpoint.ask(method, "/metrics").await;
        assert!(status(&answer) == 405 && answer.contains("\r\nAllow: GET\r\n"), "{answer}");
    }
    assert!(status(&endpoint.ask("GET", "/metrics").await) == 200, "and they are still there");
}

#[derive(Debug)]
struct Broken;

impl Collector for Broken {
    fn encode(&self, _encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let (endpoint, mut registry) = (Endpoint::start().await, Registry::default());
    registry.register("before", "Something", Tally::default());
    registry.register_collector(Box::new(Broken));
    endpoint.server.begin(registry);
    let answer = endpoint.ask("GET", "/metrics").await;
    assert!(status(&answer) == 500 && !answer.contains("before"), "{answer}");
}

#[tokio::test]
async fn one_client_takes_no_more_than_its_share_of_the_connections() {
    let endpoint = Endpoint::start().await;
    endpoint.server.begin(Registry::default());
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut socket = endpoint.connect().await;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut socket, "\r\n\r\n").await;
        kept.push(socket);
    }
    let mut beyond = endpoint.connect().await;
    assert_eq!(read_all(&mut beyond).await, "");
    drop(kept);
    assert!(endpoint.server.stop(LONG).await);
}

#[tokio::test]
async fn a_taken_address_is_refused() {
    let endpoint = Endpoint::start().await;
    let refused = MetricsServer::bind(endpoint.address().clone()).await.unwrap_err();
    assert!(matches!(refused, ApiError::Bind { .. }), "{refused}");
    let strange = parse_address("/ip4/127.0.0.1/udp/8888").unwrap();
    let refused = MetricsServer::bind(strange).await.unwrap_err();
    assert!(matches!(refused, ApiError::UnsupportedAddress { .. }), "{refused}");
}

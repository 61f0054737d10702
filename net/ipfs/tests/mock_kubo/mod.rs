//! Two false Kubos: one that speaks the RPC over a node in memory, and one that answers with bytes as told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Multipart, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cluster_core::ports::{Block, IpfsError, IpfsNode, PinProgress, PinRequest};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_core::testing::dag;
use cluster_core::testing::mem_ipfs::MemIpfs;
use cluster_core::unixfs::CidBuilder;
use cluster_core::watch;
use cluster_types::{Cid, Codec, Multiaddr, PinDepth};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How often the false Kubo tells progress; the real one does every half second.
const TICK: Duration = Duration::from_millis(10);
/// Longer than any test: the client has to give up first.
const NEVER: Duration = Duration::from_secs(3600);

/// A false Kubo over a node in memory.
pub(crate) struct MockKubo {
    pub(crate) address: Multiaddr,
    /// What is behind it.
    pub(crate) node: Arc<MemIpfs>,
    tasks: TaskGroup,
}

impl MockKubo {
    pub(crate) async fn start() -> Self {
        let (listener, address) = listen().await;
        let tasks = TaskGroup::new();
        let node = MemIpfs::new(NEVER);
        let router = Router::new()
            .route("/api/v0/block/put", post(block_put))
            .route("/api/v0/dag/import", post(dag_import))
            .route("/api/v0/pin/add", post(pin_add))
            .route("/api/v0/{*command}", post(command))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&node));
        let stop = tasks.stop_token();
        tasks.spawn("mock kubo", OnExit::Continue, async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
        });
        Self { address, node, tasks }
    }
}

impl Drop for MockKubo {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

async fn listen() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap())
}

type Node = State<Arc<MemIpfs>>;
type Answer = Result<Response, Refusal>;

struct Refusal(String);

impl From<IpfsError> for Refusal {
    fn from(error: IpfsError) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"Message": self.0, "Code": 0, "Type": "error"}).to_string();
        (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
    }
}

fn arguments(query: Option<String>) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}

fn argument<'a>(arguments: &'a [(String, String)], key: &str) -> &'a str {
    arguments.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
}

fn cid(text: &str) -> Result<Cid, Refusal> {
    text.parse().map_err(|_| Refusal(format!("invalid path {text:?}")))
}

/// A stream of lines, chunked as Kubo's are.
fn lines(lines: impl futures::Stream<Item = Value> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(|line| Ok::<_, Infallible>(format!("{line}\n"))));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn object(value: Value) -> Response {
    format!("{value}\n").into_response()
}

async fn pin_add(State(node): Node, RawQuery(query): RawQuery) -> Answer {
    let arguments = arguments(query);
    let root = cid(argument(&arguments, "arg"))?;
    let depth = if argument(&arguments, "recursive") == "false" { PinDepth::DIRECT } else { PinDepth::RECURSIVE };
    if depth == PinDepth::DIRECT && node.pinned(root).await? == Some(PinDepth::RECURSIVE) {
        return Err(Refusal(format!("pin: {root} already pinned recursively")));
    }
    let (progress, seen) = watch::channel(PinProgress::default());
    let request = PinRequest { cid: root, depth, origins: Vec::new(), update_from: None };
    Ok(lines(async_stream::stream! {
        let mut fetch = node.pin(request, progress);
        loop {
            let end = tokio::time::timeout(TICK, &mut fetch).await;
            let now = *seen.borrow();
            yield json!({"Progress": now.blocks, "Bytes": now.bytes});
            match end {
                Err(_elapsed) => {}
                Ok(Ok(())) => {
                    yield json!({"Pins": [root.to_string()]});
                    break;
                }
                Ok(Err(error)) => {
                    yield json!({"Message": error.to_string(), "Code": 0, "Type": "error"});
                    break;
                }
            }
        }
    }))
}

async fn block_put(State(node): Node, RawQuery(query): RawQuery, mut parts: Multipart) -> Answer {
    let arguments = arguments(query);
    let codec = match argument(&arguments, "cid-codec") {
        "dag-pb" => Codec::DAG_PB,
        _ => Codec::RAW,
    };
    let hash = CidBuilder::new(1, argument(&arguments, "mhtype")).map_err(|error| Refusal(error.to_string()))?;
    let mut answers = Vec::new();
    let mut bytes = 0;
    while let Some(part) = parts.next_field().await.unwrap() {
        let data = part.bytes().await.unwrap();
        bytes += data.len();
        let block = Block { cid: hash.cid(codec, &data), data };
        assert_eq!(argument(&arguments, "mhlen"), block.cid.hash().size().to_string());
        answers.push(json!({"Key": block.cid.to_string(), "Size": block.data.len()}));
        node.put_blocks(vec![block]).await?;
    }
    assert!(bytes <= 8 * 1024 * 1024, "a request of {bytes} bytes");
    Ok(lines(futures::stream::iter(answers)))
}

async fn dag_import(State(node): Node, RawQuery(query): RawQuery, mut parts: Multipart) -> Answer {
    let arguments = arguments(query);
    assert_eq!((argument(&arguments, "pin-roots"), argument(&arguments, "allow-big-block")), ("false", "true"));
    let part = parts.next_field().await.map_err(|error| Refusal(error.to_string()))?;
    let part = part.ok_or_else(|| Refusal("no file".to_owned()))?;
    let archive: Bytes = part.bytes().await.map_err(|error| Refusal(error.to_string()))?;
    assert!(archive.len() <= 9 * 1024 * 1024, "a request of {} bytes", archive.len());
    let blocks = dag::read_car(&archive).map_or(0, |(_roots, blocks)| blocks.len());
    node.import_car(futures::stream::iter([Ok(archive)]).boxed()).await?;
    Ok(lines(futures::stream::iter([json!({"Stats": {"BlockCount": blocks, "BlockBytesCount": 1}})])))
}

async fn command(State(node): Node, Path(command): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let arguments = arguments(query);
    let arg = argument(&arguments, "arg");
    Ok(match command.as_str() {
        "id" => object(json!({"ID": node.id().await?.id, "Addresses": null})),
        "pin/rm" => {
            let root = cid(arg)?;
            if node.pinned(root).await?.is_none() {
                return Err(Refusal("not pinned or pinned indirectly".to_owned()));
            }
            node.unpin(root).await?;
            object(json!({"Pins": [root.to_string()]}))
        }
        "pin/ls" => pin_ls(&node, argument(&arguments, "type"), arg).await?,
        "pin/update" => {
            let to = cid(&arguments[1].1)?;
            let request = PinRequest { cid: to, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
            node.pin(request, watch::Sender::new(PinProgress::default())).await?;
            object(json!({"Pins": [arg, to.to_string()]}))
        }
        "block/get" => node.block(cid(arg)?).await?.into_response(),
        "resolve" => object(json!({"Path": format!("/ipfs/{}", node.resolve(arg).await?)})),
        "repo/stat" => {
            let stat = node.repo_stat().await?;
            object(json!({"RepoSize": stat.repo_size, "StorageMax": stat.storage_max, "NumObjects": 0}))
        }
        "repo/gc" => {
            let removed = node.collect_garbage().await?;
            let keys = removed.into_iter().map(|key| json!({"Key": {"/": key.key.unwrap().to_string()}}));
            lines(futures::stream::iter(keys))
        }
        "swarm/connect" => {
            let addresses = arguments.iter().map(|(_, address)| address.parse().unwrap()).collect();
            node.connect(addresses).await?;
            object(json!({"Strings": ["success"]}))
        }
        "swarm/peers" => {
            let peers: Vec<Value> = node.connected().await?.into_iter().map(|peer| json!({"Peer": peer})).collect();
            object(json!({"Peers": if peers.is_empty() { Value::Null } else { peers.into() }}))
        }
        _ => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    })
}

async fn pin_ls(node: &MemIpfs, kind: &str, arg: &str) -> Answer {
    let depth = if kind == "direct" { PinDepth::DIRECT } else { PinDepth::RECURSIVE };
    if !arg.is_empty() {
        if node.pinned(cid(arg)?).await? != Some(depth) {
            return Err(Refusal(format!("path '{arg}' is not pinned")));
        }
        return Ok(lines(futures::stream::iter([json!({"Cid": arg, "Type": kind})])));
    }
    let pins = node.true_pins().into_iter().filter(move |(_, kept)| *kept == depth);
    let kind = kind.to_owned();
    let told = pins.map(move |(cid, _)| json!({"Cid": cid.to_string(), "Type": kind}));
    Ok(lines(futures::stream::iter(told.collect::<Vec<_>>())))
}

/// What the second false Kubo does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Sends these bytes and closes.
    Close(String),
    /// Sends these bytes and holds the connection open.
    Hold(String),
}

/// The beginning of a chunked answer.
pub(crate) const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\nConnection: close\r\n\r\n";
/// The end of a chunked answer.
pub(crate) const END: &str = "0\r\n\r\n";

/// A piece of a chunked answer.
pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A chunked answer that is complete.
pub(crate) fn complete(text: &str) -> Reply {
    Reply::Close(format!("{CHUNKED}{}{END}", chunk(text)))
}

/// A refusal as Kubo says it.
pub(crate) fn refusal(message: &str) -> Reply {
    let body = json!({"Message": message, "Code": 0, "Type": "error"}).to_string();
    let head = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n";
    Reply::Close(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// A false Kubo that answers as told: `script` maps command and query to an answer.
pub(crate) struct ScriptedKubo {
    pub(crate) address: Multiaddr,
    tasks: TaskGroup,
}

impl ScriptedKubo {
    pub(crate) async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let (listener, address) = listen().await;
        let tasks = TaskGroup::new();
        let (stop, group) = (tasks.stop_token(), tasks.clone());
        let script = Arc::new(script);
        tasks.spawn("scripted kubo", OnExit::Continue, async move {
            let accept = async {
                loop {
                    let (connection, _) = listener.accept().await?;
                    let (script, stop) = (Arc::clone(&script), group.stop_token());
                    group.spawn("connection", OnExit::Continue, async move {
                        stop.run_until_cancelled(answer(connection, script.as_ref())).await.unwrap_or(Ok(()))
                    });
                }
            };
            stop.run_until_cancelled(accept).await.unwrap_or(Ok::<(), std::io::Error>(()))
        });
        Self { address, tasks }
    }
}

impl Drop for ScriptedKubo {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

async fn answer(mut connection: TcpStream, script: &(dyn Fn(&str) -> Reply + Send + Sync)) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/api/v0/");
    match script(path) {
        Reply::Close(bytes) => {
            // The client may hang up before it has read everything: that is what some of the tests are about.
            drop(connection.write_all(bytes.as_bytes()).await);
        }
        Reply::Hold(bytes) => {
            connection.write_all(bytes.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

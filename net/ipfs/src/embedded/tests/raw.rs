//! A peer made by hand: it says what the test tells it to, sound or not.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::BoxError;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot};

use super::super::streams::{Behaviour, OnStream};
use super::super::wire::{self, Message};

/// What the peer does with a message it gets.
pub(super) type Answer = Arc<dyn Fn(&Message) -> Vec<Vec<u8>> + Send + Sync>;

/// The peer.
pub(super) struct RawPeer {
    pub(super) address: Multiaddr,
    /// Messages it got.
    pub(super) got: mpsc::Receiver<Message>,
    send: mpsc::Sender<ToSend>,
}

/// Bytes for a stream of their own.
struct ToSend {
    peer: PeerId,
    bytes: Vec<u8>,
    /// Keeps the stream open, without another byte.
    hold: bool,
}

/// When the peer stops to read a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    OneMessage,
}

impl RawPeer {
    /// Starts a peer that answers every message with `answer`'s byte strings, each on a stream of its own.
    pub(super) async fn start(tasks: &TaskGroup, answer: Answer) -> Self {
        Self::reading(tasks, answer, Reads::All).await
    }

    /// The same; the peer may break off streams it reads.
    pub(super) async fn reading(tasks: &TaskGroup, answer: Answer, reads: Reads) -> Self {
        let (got_tx, got) = mpsc::channel(1024);
        let (send, mut to_send) = mpsc::channel::<ToSend>(1024);
        let (reader_tasks, answers) = (tasks.clone(), send.clone());
        let on_stream: OnStream = Arc::new(move |peer, mut stream, _version| {
            let (got, answers, answer) = (got_tx.clone(), answers.clone(), Arc::clone(&answer));
            reader_tasks.spawn("raw reader", OnExit::Continue, async move {
                while let Ok(Some(length)) = wire::read_length(&mut stream).await {
                    let mut body = Vec::new();
                    wire::read_on(&mut stream, &mut body, length, Duration::from_secs(60)).await?;
                    let message = wire::decode(body.into())?;
                    for bytes in answer(&message) {
                        answers.send(ToSend { peer, bytes, hold: false }).await?;
                    }
                    if reads == Reads::OneMessage {
                        drop(stream);
                        drop(got.try_send(message));
                        break;
                    }
                    drop(got.try_send(message));
                }
                Ok::<(), BoxError>(())
            });
        });
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| Behaviour::new(on_stream))
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with(Protocol::P2p(*swarm.local_peer_id()));
            }
        };
        let (stop, writer_tasks, again) = (tasks.stop_token(), tasks.clone(), send.clone());
        tasks.spawn("raw swarm", OnExit::Continue, async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    _ = swarm.select_next_some() => {}
                    Some(ToSend { peer, bytes, hold }) = to_send.recv() => {
                        let (reply, opened) = oneshot::channel();
                        swarm.behaviour_mut().open(peer, reply);
                        let (again, stop) = (again.clone(), stop.clone());
                        writer_tasks.spawn("raw writer", OnExit::Continue, async move {
                            if let Ok(Ok((mut stream, _))) = opened.await {
                                drop(stream.write_all(&bytes).await);
                                if hold {
                                    drop(stream.flush().await);
                                    stop.cancelled().await;
                                }
                                drop(stream.close().await);
                            } else {
                                // This side may hear of the connection a little later than the other.
                                tokio::task::yield_now().await;
                                drop(again.try_send(ToSend { peer, bytes, hold }));
                            }
                            Ok::<(), BoxError>(())
                        });
                    }
                }
            }
        });
        Self { address, got, send }
    }

    /// Sends bytes to a connected peer on a new stream.
    pub(super) async fn send(&self, peer: PeerId, bytes: Vec<u8>) {
        assert!(self.send.send(ToSend { peer, bytes, hold: false }).await.is_ok());
    }

    /// Sends bytes on a new stream, and then nothing, without closing it.
    pub(super) async fn send_and_hold(&self, peer: PeerId, bytes: Vec<u8>) {
        assert!(self.send.send(ToSend { peer, bytes, hold: true }).await.is_ok());
    }
}

/// For peers that only listen.
pub(super) fn silent() -> Answer {
    Arc::new(|_| Vec::new())
}

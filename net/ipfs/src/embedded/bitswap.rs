//! The exchange of blocks: what the peers want of us, what we want of them, and the store between.
//!
//! All state is behind one lock that is never held across an await. Every connected peer has one task that writes to
//! it ([`super::link`]); what it has to write is not queued as messages but computed from the state when the stream is
//! ready for it: changes of wants by block ([`Outbox`]) and answers by block ([`Ledger`]). Both are bounded, so a peer
//! that does not read costs nothing.
//!
//! **Invariant:** a block is stored only if it is wanted, and only under the hash of its bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{Block, BlockError};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{Cid, ErrorChain, PeerId};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Ask, Client, Question, SessionId, WaiterId};
use super::kept::Kept;
use super::server::{Ledger, Owed};
use super::swarm::Command;
use super::wire::{self, Entry, Message, Payload, Presence, Version, Wantlist};

/// Changes of wants kept per peer; when there are more, the whole list is sent instead.
const MAX_CHANGES: usize = 4096;
/// Changes per message, about 50 KiB.
const CHANGES_PER_MESSAGE: usize = 1024;
/// A message is sent when its blocks reach this many bytes; with one more block it stays far below the limit.
const MESSAGE_TARGET: usize = 512 * 1024;
/// A want-have for a block up to this size is answered with the block.
const SMALL_BLOCK: u64 = 1024;
/// Blocks wanted at a time in all fetches together: half of what a peer keeps per asker.
const MAX_WANTED: usize = 512;
/// Streams a peer may have open towards us; others use one or two. Each may hold 256 KiB that is not read yet.
const STREAMS_PER_PEER: usize = 8;
/// Message bodies of one peer read at a time: at most 4 MiB each.
const BODIES_PER_PEER: usize = 4;
/// Large bodies read at a time from peers that owe us blocks, and from all others: whoever was asked for nothing cannot
/// keep out what was asked for.
const BODIES_OWED: usize = 24;
const BODIES_UNASKED: usize = 8;
/// Messages on their way to peers at a time, each of at most [`MESSAGE_TARGET`] and a block: 80 MiB if all are the largest.
const SERVING: usize = 32;
/// Bytes of blocks that nobody asked for, since the last that somebody did: late ones and those that cross their CANCEL are
/// a few messages.
const MAX_UNASKED: usize = 32 * 1024 * 1024;

/// Whether a peer may go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    /// It may.
    Welcome,
    /// It sent too much that nobody asked for.
    Outstayed,
}

/// The exchange.
pub(super) struct Bitswap {
    pub(super) kept: Arc<Kept>,
    pub(super) tasks: TaskGroup,
    pub(super) swarm: mpsc::Sender<Command>,
    bodies_owed: Semaphore,
    bodies_unasked: Semaphore,
    /// Slots for messages on their way; fair, so that peers take turns.
    pub(super) serving: Semaphore,
    state: Mutex<State>,
    wanting: Semaphore,
}

struct State {
    client: Client,
    peers: HashMap<PeerId, Peer>,
}

/// A connected peer.
struct Peer {
    ledger: Ledger,
    outbox: Outbox,
    handles: PeerHandles,
    /// Whether it can be written to; a peer that speaks no bitswap cannot.
    mute: bool,
    /// Bytes of blocks nobody asked for, since the last that somebody did.
    unasked: usize,
}

/// What the tasks of a peer share.
#[derive(Clone)]
pub(super) struct PeerHandles {
    /// Something is to be written.
    pub(super) wake: Arc<Notify>,
    /// The peer is gone.
    pub(super) gone: CancellationToken,
    /// Slots for streams towards us.
    pub(super) streams: Arc<Semaphore>,
    /// Slots for bodies towards us.
    pub(super) bodies: Arc<Semaphore>,
}

/// Changes of our wants that a peer does not know yet: the latest one per block.
#[derive(Debug, Default)]
struct Outbox {
    changes: BTreeMap<Vec<u8>, (Cid, Ask)>,
    resend_all: bool,
}

impl Outbox {
    fn note(&mut self, cid: Cid, ask: Ask) {
        if self.resend_all {
            return;
        }
        self.changes.insert(cid.hash_bytes(), (cid, ask));
        if self.changes.len() > MAX_CHANGES {
            self.resend_all();
        }
    }

    fn resend_all(&mut self) {
        self.changes.clear();
        self.resend_all = true;
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.resend_all
    }
}

/// A running fetch; ends when dropped.
pub(super) struct Session {
    bitswap: Arc<Bitswap>,
    id: SessionId,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.bitswap.state.lock().client.end_session(self.id);
    }
}

/// Takes a want back when whoever waits for it goes away.
struct WantGuard<'a> {
    bitswap: &'a Bitswap,
    multihash: Vec<u8>,
    waiter: WaiterId,
}

impl Drop for WantGuard<'_> {
    fn drop(&mut self) {
        self.bitswap.change(|state, _now, out| state.client.give_up(&self.multihash, self.waiter, out));
    }
}

impl Bitswap {
    /// An exchange over `kept`. `swarm` opens streams.
    pub(super) fn new(
        kept: Arc<Kept>,
        tasks: TaskGroup,
        swarm: mpsc::Sender<Command>,
        request_timeout: Duration,
    ) -> Arc<Self> {
        let state = State { client: Client::new(request_timeout), peers: HashMap::new() };
        Arc::new(Self {
            kept,
            tasks,
            swarm,
            bodies_owed: Semaphore::new(BODIES_OWED),
            bodies_unasked: Semaphore::new(BODIES_UNASKED),
            serving: Semaphore::new(SERVING),
            state: Mutex::new(state),
            wanting: Semaphore::new(MAX_WANTED),
        })
    }

    /// Watches the time until the node stops.
    pub(super) async fn watch_time(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.change(|state, now, out| state.client.tick(now, out)),
            }
        }
    }

    /// Changes the state and passes on what is to be asked because of it.
    fn change<T>(&self, work: impl FnOnce(&mut State, Instant, &mut Vec<Question>) -> T) -> T {
        let mut out = Vec::new();
        let mut state = self.state.lock();
        let result = work(&mut state, Instant::now(), &mut out);
        for question in out {
            if let Some(peer) = state.peers.get_mut(&question.peer)
                && !peer.mute
            {
                peer.outbox.note(question.cid, question.ask);
                peer.handles.wake.notify_one();
            }
        }
        result
    }

    /// The peer's handles; its first mention starts the task that writes to it.
    pub(super) fn peer(self: &Arc<Self>, id: PeerId) -> PeerHandles {
        let mut state = self.state.lock();
        if let Some(peer) = state.peers.get(&id) {
            return peer.handles.clone();
        }
        let handles = PeerHandles {
            wake: Arc::new(Notify::new()),
            gone: self.tasks.stop_token().child_token(),
            streams: Arc::new(Semaphore::new(STREAMS_PER_PEER)),
            bodies: Arc::new(Semaphore::new(BODIES_PER_PEER)),
        };
        let peer = Peer {
            ledger: Ledger::default(),
            outbox: Outbox::default(),
            handles: handles.clone(),
            mute: false,
            unasked: 0,
        };
        state.peers.insert(id, peer);
        drop(state);
        let link = Arc::clone(self).write_to(id, handles.clone());
        self.tasks.spawn("bitswap writer", OnExit::Continue, async move {
            link.await;
            Ok::<(), BlockError>(())
        });
        handles
    }

    /// The slots for large messages of a peer.
    pub(super) fn bodies_for(&self, peer: &PeerId) -> &Semaphore {
        if self.state.lock().client.owes(peer) { &self.bodies_owed } else { &self.bodies_unasked }
    }

    /// A peer is connected.
    pub(super) fn peer_joined(self: &Arc<Self>, id: PeerId) {
        drop(self.peer(id));
        self.change(|state, now, out| state.client.peer_joined(id, now, out));
    }

    /// A peer's last connection is closed.
    pub(super) fn peer_left(&self, id: PeerId) {
        self.change(|state, now, out| {
            if let Some(peer) = state.peers.remove(&id) {
                peer.handles.gone.cancel();
            }
            state.client.peer_left(id, now, out);
        });
    }

    /// A peer cannot be written to: it is asked for nothing and told nothing until it connects again.
    pub(super) fn mute(&self, id: PeerId) {
        self.change(|state, now, out| {
            if let Some(peer) = state.peers.get_mut(&id) {
                peer.mute = true;
                peer.ledger.clear();
                peer.outbox = Outbox::default();
            }
            state.client.peer_left(id, now, out);
        });
    }

    /// Tells a peer all our wants again: what was written last may be lost.
    pub(super) fn resend_all(&self, id: PeerId) {
        if let Some(peer) = self.state.lock().peers.get_mut(&id) {
            peer.outbox.resend_all();
            peer.handles.wake.notify_one();
        }
    }

    /// Begins a fetch.
    pub(super) fn session(self: &Arc<Self>) -> Session {
        Session { bitswap: Arc::clone(self), id: self.state.lock().client.begin_session() }
    }

    /// Waits until a block is in the store; for as long as it takes. Dropping the future takes the want back.
    pub(super) async fn fetch(&self, session: &Session, cid: Cid) -> Result<Bytes, BlockError> {
        let multihash = cid.hash_bytes();
        loop {
            let _slot = self.wanting.acquire().await;
            let (waiter, landed) = self.change(|state, now, out| state.client.want(session.id, cid, now, out));
            let _guard = WantGuard { bitswap: self, multihash: multihash.clone(), waiter };
            // It may have arrived between the caller's look and the want.
            if let Some(data) = self.kept.get_sound(&multihash).await? {
                return Ok(data);
            }
            // Without an answer the want was dropped, and the look at the store decides.
            if let Ok(Err(error)) = landed.await {
                return Err(BlockError::Io { operation: "keep a fetched block", cause: error.into() });
            }
            if let Some(data) = self.kept.get_sound(&multihash).await? {
                return Ok(data);
            }
        }
    }

    /// Blocks are in the store now: whoever waits for them, here or elsewhere, gets them.
    pub(super) fn arrived(&self, multihashes: &[Vec<u8>], from: Option<PeerId>) {
        self.change(|state, now, out| {
            for multihash in multihashes {
                state.client.landed(multihash, from, now, out);
                for peer in state.peers.values_mut() {
                    if peer.ledger.arrived(multihash) {
                        peer.handles.wake.notify_one();
                    }
                }
            }
        });
    }

    /// Takes a message from a peer.
    pub(super) async fn receive(&self, from: PeerId, message: Message) -> Welcome {
        self.change(|state, now, out| {
            if let (Some(peer), Some(wantlist)) = (state.peers.get_mut(&from), &message.wantlist)
                && !peer.mute
            {
                peer.ledger.apply(wantlist);
                peer.handles.wake.notify_one();
            }
            for presence in &message.presences {
                if let Ok(cid) = Cid::from_bytes(&presence.cid) {
                    state.client.presence(from, &cid, presence.kind == wire::HAVE, now, out);
                }
            }
        });
        let bare = message.blocks.into_iter().map(|data| Payload { prefix: wire::bare_prefix(), data });
        let (mut blocks, mut unasked) = (Vec::new(), 0);
        for payload in message.payload.into_iter().chain(bare) {
            let wanted = wire::multihash_of(&payload).and_then(|multihash| self.state.lock().client.wanted(&multihash));
            match wanted {
                Some(cid) => blocks.push(Block { cid, data: payload.data }),
                None => unasked += payload.data.len(),
            }
        }
        if blocks.is_empty() {
            return self.count_unasked(from, unasked);
        }
        let multihashes: Vec<_> = blocks.iter().map(|block| block.cid.hash_bytes()).collect();
        match self.kept.put_fetched(blocks).await {
            Ok(()) => self.arrived(&multihashes, Some(from)),
            Err(error) => {
                let error = Arc::new(error);
                self.change(|state, _now, _out| {
                    multihashes.iter().for_each(|multihash| state.client.failed(multihash, &error));
                });
            }
        }
        if let Some(peer) = self.state.lock().peers.get_mut(&from) {
            peer.unasked = 0;
        }
        Welcome::Welcome
    }

    fn count_unasked(&self, from: PeerId, bytes: usize) -> Welcome {
        let mut state = self.state.lock();
        let Some(peer) = state.peers.get_mut(&from) else { return Welcome::Welcome };
        peer.unasked += bytes;
        if peer.unasked > MAX_UNASKED { Welcome::Outstayed } else { Welcome::Welcome }
    }

    /// Whether there is something to write to a peer.
    pub(super) fn has_work(&self, id: PeerId) -> bool {
        self.state
            .lock()
            .peers
            .get(&id)
            .is_some_and(|peer| !peer.mute && (peer.ledger.owes() || !peer.outbox.is_empty()))
    }

    /// The next message to a peer; `None` when there is nothing to say.
    pub(super) async fn next_message(&self, id: PeerId, version: Version) -> Option<Message> {
        let mut message = Message { wantlist: self.take_changes(id), ..Message::default() };
        let mut size = 0;
        while size < MESSAGE_TARGET {
            let Some(owed) = self.with_ledger(id, Ledger::next).flatten() else { break };
            size += self.answer(id, owed, version, &mut message).await;
        }
        let empty = message.wantlist.is_none()
            && message.payload.is_empty()
            && message.blocks.is_empty()
            && message.presences.is_empty();
        (!empty).then_some(message)
    }

    /// Size and, if that is the answer, bytes of a block that a peer wants.
    async fn look_up(&self, owed: &Owed, version: Version) -> Result<(Option<Bytes>, Option<u64>), BlockError> {
        let multihash = owed.cid.hash_bytes();
        let size = self.kept.store().size(&multihash).await?.filter(|size| *size <= wire::MAX_BLOCK as u64);
        let as_block = owed.block || version != Version::V1_2;
        let data = match size {
            Some(size) if as_block || size <= SMALL_BLOCK => self.kept.get(&multihash).await?,
            _ => None,
        };
        Ok((data, size))
    }

    /// Adds the answer to a want; says how large it is.
    async fn answer(&self, id: PeerId, owed: Owed, version: Version, message: &mut Message) -> usize {
        let (data, size) = self.look_up(&owed, version).await.unwrap_or_else(|error| {
            // What cannot be read is not here, as far as others are concerned; they may find it elsewhere.
            tracing::debug!(cid = %owed.cid, error = %ErrorChain(&error), "cannot read a block that a peer wants");
            (None, None)
        });
        let as_block = owed.block || version != Version::V1_2;
        let cid = Bytes::from(owed.cid.to_bytes());
        let cost = cid.len() + 16 + data.as_ref().map_or(0, Bytes::len);
        match (data, size) {
            (Some(data), _) => {
                if version == Version::V1_0 {
                    message.blocks.push(data);
                } else {
                    message.payload.push(Payload { prefix: wire::prefix_of(&owed.cid), data });
                }
                self.with_ledger(id, |ledger| ledger.met(&owed.cid, true));
            }
            (None, Some(_)) if !as_block => {
                message.presences.push(Presence { cid, kind: wire::HAVE });
                self.with_ledger(id, |ledger| ledger.met(&owed.cid, false));
            }
            (None, _) if owed.dont_have && version == Version::V1_2 => {
                message.presences.push(Presence { cid, kind: wire::DONT_HAVE });
            }
            (None, _) => {}
        }
        cost
    }

    fn with_ledger<T>(&self, id: PeerId, work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        self.state.lock().peers.get_mut(&id).map(|peer| work(&mut peer.ledger))
    }

    fn take_changes(&self, id: PeerId) -> Option<Wantlist> {
        let mut state = self.state.lock();
        let State { client, peers } = &mut *state;
        let peer = peers.get_mut(&id)?;
        let full = std::mem::take(&mut peer.outbox.resend_all);
        let mut changes = Vec::new();
        if full {
            peer.outbox.changes.clear();
            changes = client.questions_to(id);
        }
        while changes.len() < CHANGES_PER_MESSAGE
            && let Some((_, change)) = peer.outbox.changes.pop_first()
        {
            changes.push(change);
        }
        let entries: Vec<_> = changes.into_iter().map(|(cid, ask)| entry(&cid, ask)).collect();
        (full || !entries.is_empty()).then_some(Wantlist { entries, full })
    }
}

fn entry(cid: &Cid, ask: Ask) -> Entry {
    Entry {
        cid: cid.to_bytes().into(),
        priority: 1,
        cancel: ask == Ask::Cancel,
        want_type: if ask == Ask::Have { wire::WANT_HAVE } else { wire::WANT_BLOCK },
        send_dont_have: ask != Ask::Cancel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_overflows_becomes_one_full_list() {
        let mut outbox = Outbox::default();
        let builder = cluster_core::unixfs::CidBuilder::new(1, "sha2-256").unwrap();
        for number in 0..=MAX_CHANGES {
            outbox.note(builder.cid(cluster_types::Codec::RAW, &number.to_be_bytes()), Ask::Cancel);
        }
        assert!(outbox.resend_all && outbox.changes.is_empty());
        outbox.note(builder.cid(cluster_types::Codec::RAW, b"more"), Ask::Have);
        assert!(outbox.changes.is_empty(), "the full list will say it");
    }
}

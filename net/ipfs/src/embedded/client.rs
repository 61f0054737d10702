//! Whom to ask for which block, and when to ask somebody else. Pure: events and the time in, questions out.
//!
//! A fetch is a session. Its first block is asked of every connected peer (want-have; want-block when there is only
//! one); who delivers becomes a peer of the session and is asked for the next blocks directly. A peer that has not, or
//! is silent for too long, is passed over; when nobody is left, every peer is asked again, at growing intervals.
//!
//! **Invariant:** a want has at most one unanswered want-block whose time is not over.
//! **Invariant:** every peer that was asked hears CANCEL when the want ends, unless it sent the block itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::BlockError;
use cluster_types::{Cid, PeerId};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A question is repeated after at most this long.
const LONGEST_REPEAT: Duration = Duration::from_secs(60);
/// A block may be this many request timeouts late while the peer delivers others.
const BUSY_TIMEOUTS: u32 = 6;

/// Something to tell a peer about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Do you have it?
    Have,
    /// Send it.
    Block,
    /// No longer needed.
    Cancel,
}

/// One thing to tell one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Whom.
    pub(super) peer: PeerId,
    /// Which block.
    pub(super) cid: Cid,
    /// What.
    pub(super) ask: Ask,
}

/// A fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(u64);

/// How waiting for a block ends: it is in the store, or the store did not take it.
pub(super) type Landing = Result<(), Arc<BlockError>>;

/// Somebody who waits for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(u64);

/// What a peer was asked about a block, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Asked whether it has it.
    Have,
    /// Asked before; the question is due again.
    Again,
    /// It says it has it.
    Has,
    /// Asked to send it.
    Block { since: Instant },
    /// It says it has it not.
    Lacks,
    /// It did not send it in time.
    Late,
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    session: SessionId,
    done: oneshot::Sender<Landing>,
}

#[derive(Debug)]
struct Want {
    cid: Cid,
    waiters: Vec<Waiter>,
    asked: BTreeMap<PeerId, Asked>,
    repeat_at: Instant,
    repeat_after: Duration,
}

/// How a connected peer does.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// When it last sent something useful.
    useful_at: Option<Instant>,
    /// Blocks it owes.
    owed: usize,
    /// Blocks it was late with since its last useful one.
    strikes: u32,
}

/// The wants of this node.
#[derive(Debug)]
pub(super) struct Client {
    wants: HashMap<Vec<u8>, Want>,
    sessions: BTreeMap<SessionId, BTreeSet<PeerId>>,
    peers: BTreeMap<PeerId, Standing>,
    request_timeout: Duration,
    next_id: u64,
}

impl Client {
    /// A client that gives a peer `request_timeout` to send something.
    pub(super) fn new(request_timeout: Duration) -> Self {
        Self { wants: HashMap::new(), sessions: BTreeMap::new(), peers: BTreeMap::new(), request_timeout, next_id: 0 }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Begins a fetch.
    pub(super) fn begin_session(&mut self) -> SessionId {
        let id = SessionId(self.fresh_id());
        self.sessions.insert(id, BTreeSet::new());
        id
    }

    /// Ends a fetch.
    pub(super) fn end_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Wants a block; the receiver fires when it is in the store, or cannot be put there.
    pub(super) fn want(
        &mut self,
        session: SessionId,
        cid: Cid,
        now: Instant,
        out: &mut Vec<Question>,
    ) -> (WaiterId, oneshot::Receiver<Landing>) {
        let id = WaiterId(self.fresh_id());
        let (done, landed) = oneshot::channel();
        let repeat_after = self.request_timeout;
        let want = self.wants.entry(cid.hash_bytes()).or_insert_with(|| Want {
            cid,
            waiters: Vec::new(),
            asked: BTreeMap::new(),
            repeat_at: now + repeat_after,
            repeat_after,
        });
        want.waiters.push(Waiter { id, session, done });
        plan(want, &self.sessions, &mut self.peers, now, out);
        (id, landed)
    }

    /// Somebody no longer waits.
    pub(super) fn give_up(&mut self, multihash: &[u8], waiter: WaiterId, out: &mut Vec<Question>) {
        let Some(want) = self.wants.get_mut(multihash) else { return };
        want.waiters.retain(|waiting| waiting.id != waiter);
        if want.waiters.is_empty() {
            self.end_want(multihash, None, out);
        }
    }

    /// The CID under which a block is wanted.
    pub(super) fn wanted(&self, multihash: &[u8]) -> Option<Cid> {
        self.wants.get(multihash).map(|want| want.cid)
    }

    /// A block is in the store, from a peer or by another way.
    pub(super) fn landed(&mut self, multihash: &[u8], from: Option<PeerId>, now: Instant, out: &mut Vec<Question>) {
        let Some(want) = self.end_want(multihash, from, out) else { return };
        for waiter in want.waiters {
            if let (Some(peer), Some(members)) = (from, self.sessions.get_mut(&waiter.session)) {
                members.insert(peer);
            }
            let _whoever_waited_may_be_gone = waiter.done.send(Ok(()));
        }
        if let Some(standing) = from.and_then(|peer| self.peers.get_mut(&peer)) {
            standing.useful_at = Some(now);
            standing.strikes = 0;
        }
    }

    /// A block came and cannot be stored: whoever waits for it hears why, and may give up.
    pub(super) fn failed(&mut self, multihash: &[u8], error: &Arc<BlockError>) {
        for waiter in self.wants.get_mut(multihash).into_iter().flat_map(|want| want.waiters.drain(..)) {
            let _whoever_waited_may_be_gone = waiter.done.send(Err(Arc::clone(error)));
        }
    }

    /// Whether a peer was asked for a block that has not come yet.
    pub(super) fn owes(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|standing| standing.owed > 0)
    }

    fn end_want(&mut self, multihash: &[u8], from: Option<PeerId>, out: &mut Vec<Question>) -> Option<Want> {
        let want = self.wants.remove(multihash)?;
        for (peer, asked) in &want.asked {
            if let (Asked::Block { .. }, Some(standing)) = (asked, self.peers.get_mut(peer)) {
                standing.owed = standing.owed.saturating_sub(1);
            }
            if Some(*peer) != from {
                out.push(Question { peer: *peer, cid: want.cid, ask: Ask::Cancel });
            }
        }
        Some(want)
    }

    /// A peer is there.
    pub(super) fn peer_joined(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Question>) {
        self.peers.entry(peer).or_default();
        for want in self.wants.values_mut() {
            plan(want, &self.sessions, &mut self.peers, now, out);
        }
    }

    /// A peer is gone, or cannot be asked.
    pub(super) fn peer_left(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Question>) {
        self.peers.remove(&peer);
        for members in self.sessions.values_mut() {
            members.remove(&peer);
        }
        for want in self.wants.values_mut() {
            if want.asked.remove(&peer).is_some() {
                plan(want, &self.sessions, &mut self.peers, now, out);
            }
        }
    }

    /// A peer says whether it has a block.
    pub(super) fn presence(&mut self, peer: PeerId, cid: &Cid, has: bool, now: Instant, out: &mut Vec<Question>) {
        let Some(want) = self.wants.get_mut(&cid.hash_bytes()) else { return };
        let Some(asked) = want.asked.get_mut(&peer) else { return };
        match (*asked, has) {
            (Asked::Block { .. }, true) => return, // It is about to send it.
            (Asked::Block { .. }, false) => {
                if let Some(standing) = self.peers.get_mut(&peer) {
                    standing.owed = standing.owed.saturating_sub(1);
                }
                *asked = Asked::Lacks;
            }
            // A promise that it broke before does not make it first again; the repeated question gives a new chance.
            (Asked::Late, true) => return,
            (_, true) => *asked = Asked::Has,
            (_, false) => *asked = Asked::Lacks,
        }
        plan(want, &self.sessions, &mut self.peers, now, out);
    }

    /// Looks for silent peers and repeats questions; call it a few times per request timeout.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Question>) {
        for want in self.wants.values_mut() {
            for (peer, asked) in &mut want.asked {
                let Asked::Block { since } = *asked else { continue };
                let Some(standing) = self.peers.get_mut(peer) else { continue };
                let quiet_since = standing.useful_at.map_or(since, |useful| useful.max(since));
                if now < quiet_since + self.request_timeout && now < since + self.request_timeout * BUSY_TIMEOUTS {
                    continue;
                }
                *asked = Asked::Late;
                standing.owed = standing.owed.saturating_sub(1);
                standing.strikes = standing.strikes.saturating_add(1);
                for waiter in &want.waiters {
                    if let Some(members) = self.sessions.get_mut(&waiter.session) {
                        members.remove(peer);
                    }
                }
            }
            if now >= want.repeat_at && !is_on_its_way(want) {
                want.repeat_after = (want.repeat_after * 2).min(LONGEST_REPEAT);
                want.repeat_at = now + want.repeat_after;
                // Nobody is forgotten: whoever was asked must hear of the end.
                want.asked.values_mut().filter(|asked| **asked != Asked::Has).for_each(|asked| *asked = Asked::Again);
            }
            plan(want, &self.sessions, &mut self.peers, now, out);
        }
    }

    /// All that a peer should know of our wants, for a stream that had to be opened again.
    pub(super) fn questions_to(&self, peer: PeerId) -> Vec<(Cid, Ask)> {
        let ask = |want: &Want| match want.asked.get(&peer)? {
            Asked::Block { .. } => Some((want.cid, Ask::Block)),
            Asked::Have | Asked::Again | Asked::Has | Asked::Lacks | Asked::Late => Some((want.cid, Ask::Have)),
        };
        self.wants.values().filter_map(ask).collect()
    }
}

fn is_on_its_way(want: &Want) -> bool {
    want.asked.values().any(|asked| matches!(asked, Asked::Block { .. }))
}

/// Decides whom to ask next about a block, unless it is on its way.
fn plan(
    want: &mut Want,
    sessions: &BTreeMap<SessionId, BTreeSet<PeerId>>,
    peers: &mut BTreeMap<PeerId, Standing>,
    now: Instant,
    out: &mut Vec<Question>,
) {
    if is_on_its_way(want) {
        return;
    }
    let load =
        |peer: &PeerId| peers.get(peer).map_or((u32::MAX, usize::MAX), |standing| (standing.strikes, standing.owed));
    let says_it_has = want.asked.iter().filter(|(_, asked)| **asked == Asked::Has).map(|(peer, _)| *peer);
    let in_session = want
        .waiters
        .iter()
        .filter_map(|waiter| sessions.get(&waiter.session))
        .flatten()
        .filter(|peer| !matches!(want.asked.get(peer), Some(Asked::Lacks | Asked::Late)))
        .copied();
    let is_due = |asked: Option<&Asked>| matches!(asked, None | Some(Asked::Again));
    let only = || (peers.len() == 1).then(|| peers.keys().find(|peer| is_due(want.asked.get(peer))).copied());
    let chosen = says_it_has.min_by_key(load).or_else(|| in_session.min_by_key(load)).or_else(|| only().flatten());
    if let Some(peer) = chosen {
        want.asked.insert(peer, Asked::Block { since: now });
        if let Some(standing) = peers.get_mut(&peer) {
            standing.owed += 1;
        }
        out.push(Question { peer, cid: want.cid, ask: Ask::Block });
        return;
    }
    for peer in peers.keys() {
        if is_due(want.asked.get(peer)) {
            want.asked.insert(*peer, Asked::Have);
            out.push(Question { peer: *peer, cid: want.cid, ask: Ask::Have });
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::unixfs::CidBuilder;
    use cluster_types::Codec;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn block(number: u8) -> Cid {
        CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, &[number])
    }

    struct World {
        client: Client,
        now: Instant,
        peers: Vec<PeerId>,
        session: SessionId,
    }

    impl World {
        fn with_peers(count: usize) -> Self {
            let mut client = Client::new(TIMEOUT);
            let now = Instant::now();
            let mut peers: Vec<_> = (0..count).map(|_| PeerId::random()).collect();
            peers.sort();
            for peer in &peers {
                client.peer_joined(*peer, now, &mut Vec::new());
            }
            let session = client.begin_session();
            Self { client, now, peers, session }
        }

        fn want(&mut self, cid: Cid) -> (Vec<(PeerId, Ask)>, WaiterId, oneshot::Receiver<Landing>) {
            let mut out = Vec::new();
            let (waiter, landed) = self.client.want(self.session, cid, self.now, &mut out);
            (brief(out), waiter, landed)
        }

        fn presence(&mut self, peer: usize, cid: &Cid, has: bool) -> Vec<(PeerId, Ask)> {
            let mut out = Vec::new();
            self.client.presence(self.peers[peer], cid, has, self.now, &mut out);
            brief(out)
        }

        fn landed(&mut self, peer: usize, cid: &Cid) -> Vec<(PeerId, Ask)> {
            let mut out = Vec::new();
            self.client.landed(&cid.hash_bytes(), Some(self.peers[peer]), self.now, &mut out);
            brief(out)
        }

        fn later(&mut self, by: Duration) -> Vec<(PeerId, Ask)> {
            self.now += by;
            let mut out = Vec::new();
            self.client.tick(self.now, &mut out);
            brief(out)
        }
    }

    fn brief(questions: Vec<Question>) -> Vec<(PeerId, Ask)> {
        questions.into_iter().map(|question| (question.peer, question.ask)).collect()
    }

    #[test]
    fn the_first_block_is_asked_of_all_and_the_next_of_who_delivered() {
        let mut world = World::with_peers(3);
        let peers = world.peers.clone();
        let (asked, _, mut landed) = world.want(block(1));
        assert_eq!(asked, peers.iter().map(|peer| (*peer, Ask::Have)).collect::<Vec<_>>());
        assert_eq!(world.presence(0, &block(1), false), []);
        assert_eq!(world.presence(2, &block(1), true), [(peers[2], Ask::Block)]);
        assert_eq!(world.presence(1, &block(1), true), [], "it is on its way");
        assert_eq!(world.landed(2, &block(1)), [(peers[0], Ask::Cancel), (peers[1], Ask::Cancel)]);
        assert!(matches!(landed.try_recv(), Ok(Ok(()))));
        assert_eq!(world.want(block(2)).0, [(peers[2], Ask::Block)]);
        assert_eq!(
            world.presence(2, &block(2), false),
            [(peers[0], Ask::Have), (peers[1], Ask::Have)],
            "the peer of the session has it not: everybody else is asked"
        );
    }

    #[test]
    fn a_peer_that_promises_and_keeps_silent_is_passed_over() {
        let mut world = World::with_peers(3);
        let peers = world.peers.clone();
        let _landed = world.want(block(1));
        assert_eq!(world.presence(0, &block(1), true), [(peers[0], Ask::Block)]);
        assert_eq!(world.presence(1, &block(1), true), []);
        assert_eq!(world.later(TIMEOUT / 2), []);
        assert_eq!(world.later(TIMEOUT), [(peers[1], Ask::Block)]);
        world.landed(1, &block(1));
        // For the next block all promise; the silent one is asked last.
        world.client.end_session(world.session);
        world.session = world.client.begin_session();
        let _landed = world.want(block(2));
        assert_eq!(world.presence(2, &block(2), true), [(peers[2], Ask::Block)]);
        world.presence(0, &block(2), true);
        world.presence(1, &block(2), true);
        assert_eq!(world.presence(2, &block(2), false), [(peers[1], Ask::Block)]);
        assert_eq!(world.presence(1, &block(2), false), [(peers[0], Ask::Block)]);
    }

    #[test]
    fn a_busy_peer_is_not_silent() {
        let mut world = World::with_peers(1);
        let _one = world.want(block(1));
        let _two = world.want(block(2));
        world.now += TIMEOUT - Duration::from_secs(1);
        world.landed(0, &block(1));
        assert_eq!(world.later(Duration::from_secs(2)), [], "it sent another block a moment ago");
    }

    #[test]
    fn when_nobody_has_it_the_question_is_repeated_and_who_comes_later_is_asked() {
        let mut world = World::with_peers(2);
        let peers = world.peers.clone();
        let _landed = world.want(block(1));
        world.presence(0, &block(1), false);
        world.presence(1, &block(1), false);
        assert_eq!(world.later(TIMEOUT).len(), 2);
        assert_eq!(world.later(TIMEOUT).len(), 0, "the interval grows");
        let late = PeerId::random();
        let mut out = Vec::new();
        world.client.peer_joined(late, world.now, &mut out);
        assert_eq!(brief(out), [(late, Ask::Have)]);
        // A peer that got it after all says so without being asked again.
        assert_eq!(world.presence(1, &block(1), true), [(peers[1], Ask::Block)]);
    }

    #[test]
    fn whoever_was_asked_hears_of_the_end_also_after_a_repeated_question() {
        let mut world = World::with_peers(3);
        let peers = world.peers.clone();
        // The last one belongs to the session, so it alone is asked when the question is due again.
        let _landed = world.want(block(1));
        world.presence(2, &block(1), true);
        world.landed(2, &block(1));
        let (asked, waiter, _landed) = world.want(block(2));
        assert_eq!(asked, [(peers[2], Ask::Block)]);
        world.presence(2, &block(2), false);
        assert_eq!(world.later(TIMEOUT), [(peers[2], Ask::Block)]);
        let mut out = Vec::new();
        world.client.give_up(&block(2).hash_bytes(), waiter, &mut out);
        assert_eq!(brief(out), peers.iter().map(|peer| (*peer, Ask::Cancel)).collect::<Vec<_>>());
    }

    #[test]
    fn who_gives_up_cancels_and_a_lost_peer_is_replaced() {
        let mut world = World::with_peers(2);
        let peers = world.peers.clone();
        let (_, waiter, _landed) = world.want(block(1));
        let mut out = Vec::new();
        world.client.give_up(&block(1).hash_bytes(), waiter, &mut out);
        assert_eq!(brief(out), [(peers[0], Ask::Cancel), (peers[1], Ask::Cancel)]);
        assert_eq!(world.client.wanted(&block(1).hash_bytes()), None);

        let _landed = world.want(block(2));
        world.presence(0, &block(2), true);
        world.presence(1, &block(2), true);
        let mut out = Vec::new();
        world.client.peer_left(peers[0], world.now, &mut out);
        assert_eq!(brief(out), [(peers[1], Ask::Block)]);
        assert_eq!(world.client.questions_to(peers[1]), [(block(2), Ask::Block)]);
    }
}

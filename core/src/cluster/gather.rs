//! Peers that name each other found one cluster together (raft mode, `init_peerset`).
//!
//! Each of them starts without a state and waits. The one with the smallest id founds the cluster, once most of them
//! wait with it; the others join whoever has one. So the same configuration on all of them is enough, in whatever order
//! they start.
//!
//! **Invariant:** the same founders found at most one cluster: only one of them may, and not while most of the others
//! already belong to one. (A founder that lost its disk joins them again.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{ErrorClass, PeerId, WireError};
use tokio::time::Instant;

use crate::ports::Transport;
use crate::rpc::{Call, CallServer, PeerClient, PeerService, Reply};

/// How often the other founders are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long one of them may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is said what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// What came of the waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// This peer founds the cluster.
    Found,
    /// The cluster exists: these are members of it.
    Join(Vec<PeerId>),
}

/// What a founder says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It waits for the same founders.
    Waits,
    /// It belongs to a cluster.
    Member,
    /// Neither; or it waits for others.
    Other,
}

/// Answers for a peer that waits: it has nothing else to say yet.
struct Waiting {
    founders: BTreeSet<PeerId>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("founders", &self.founders).finish()
    }
}

#[async_trait]
impl PeerService for Waiting {
    async fn answer(&self, _from: PeerId, call: Call) -> Result<Reply, WireError> {
        let Call::Gather { founders } = call else {
            let what = "this peer waits for the others of its init_peerset and belongs to no cluster yet";
            return Err(WireError::new(ErrorClass::Unavailable, what));
        };
        Ok(Reply::Gathered { waits: self.founders.iter().eq(&founders), member: false })
    }

    fn is_member(&self, _peer: &PeerId) -> bool {
        false
    }

    fn trusts(&self, _peer: &PeerId) -> bool {
        true
    }
}

/// Waits until this peer may found the cluster of `founders`, itself among them, or one of them has it. Meanwhile `server`
/// says that this peer waits.
pub async fn gather(transport: &Arc<dyn Transport>, server: &CallServer, founders: BTreeSet<PeerId>) -> Gathered {
    server.serve_calls(Arc::new(Waiting { founders: founders.clone() }));
    let (own, client) = (transport.local_peer(), PeerClient::new(Arc::clone(transport)));
    let mut told: Option<Instant> = None;
    loop {
        let standings = ask(&client, own, &founders).await;
        if let Some(gathered) = decide(own, &founders, &standings) {
            return gathered;
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tell(own, &founders, &standings);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(client: &PeerClient, own: PeerId, founders: &BTreeSet<PeerId>) -> BTreeMap<PeerId, Standing> {
    let call = Call::Gather { founders: founders.iter().copied().collect() };
    let call = &call;
    let answers = founders.iter().filter(|peer| **peer != own).map(|peer| async move {
        match client.ask(*peer, call, ASK_TIMEOUT).await {
            Ok(Reply::Gathered { member: true, .. }) => Some((*peer, Standing::Member)),
            Ok(Reply::Gathered { waits: true, .. }) => Some((*peer, Standing::Waits)),
            Ok(_) => Some((*peer, Standing::Other)),
            Err(error) => {
                tracing::debug!(%peer, %error, "a peer of init_peerset does not answer");
                None
            }
        }
    });
    futures::future::join_all(answers).await.into_iter().flatten().collect()
}

fn decide(own: PeerId, founders: &BTreeSet<PeerId>, told: &BTreeMap<PeerId, Standing>) -> Option<Gathered> {
    let those = |wanted| told.iter().filter(move |(_, standing)| **standing == wanted).map(|(peer, _)| *peer);
    let members: Vec<PeerId> = those(Standing::Member).collect();
    if !members.is_empty() {
        return Some(Gathered::Join(members));
    }
    let most_wait = (those(Standing::Waits).count() + 1) * 2 > founders.len();
    (founders.first() == Some(&own) && most_wait).then_some(Gathered::Found)
}

fn tell(own: PeerId, founders: &BTreeSet<PeerId>, told: &BTreeMap<PeerId, Standing>) {
    let silent: Vec<_> = founders.iter().filter(|peer| **peer != own && !told.contains_key(*peer)).collect();
    let apart: Vec<_> =
        told.iter().filter(|(_, standing)| **standing == Standing::Other).map(|(peer, _)| peer).collect();
    let founder = founders.first();
    tracing::info!(
        ?founder, ?silent, differently_configured = ?apart,
        "waiting for the peers of consensus.raft.init_peerset: the first of them founds the cluster when most of them run"
    );
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;

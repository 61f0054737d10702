//! Answers other peers: policy first, then the service.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{ErrorClass, PeerId, WireError};
use parking_lot::RwLock;

use super::newcomers::Newcomers;
use super::policy::{Access, access};
use super::wire::{Call, Incoming, Reply, decode_incoming, encode_raft_reply, encode_reply};
use crate::catchup::{Asker, Donor};
use crate::consensus::log::{RaftReceiver, RaftReply};
use crate::ports::{CallHandler, Purpose};
use crate::trust::refusal;

/// What answers the calls of peers that pass the policy.
#[async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// Answers one call of `from`.
    async fn answer(&self, from: PeerId, call: Call) -> Result<Reply, WireError>;
    /// Whether a peer is a member as far as is known here.
    fn is_member(&self, peer: &PeerId) -> bool;
    /// Whether this peer trusts another one enough to let it in, or to let it see and move what is here.
    fn trusts(&self, peer: &PeerId) -> bool;
}

/// Answers calls, as soon as there is something to answer with.
#[derive(Default)]
pub struct CallServer {
    raft: RwLock<Option<Arc<RaftReceiver>>>,
    donor: RwLock<Option<Arc<Donor>>>,
    service: RwLock<Option<Arc<dyn PeerService>>>,
    newcomers: Newcomers,
}

impl fmt::Debug for CallServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallServer").finish_non_exhaustive()
    }
}

impl CallServer {
    /// From now on raft messages are answered.
    pub fn serve_raft(&self, raft: Arc<RaftReceiver>) {
        *self.raft.write() = Some(raft);
    }

    /// From now on shards are served.
    pub fn serve_shards(&self, donor: Arc<Donor>) {
        *self.donor.write() = Some(donor);
    }

    /// From now on calls are answered.
    pub fn serve_calls(&self, service: Arc<dyn PeerService>) {
        *self.service.write() = Some(service);
    }

    /// Who asks; while this peer starts, by what its log knows.
    fn asker(&self, from: &PeerId) -> Asker {
        let service = self.service.read().as_ref().map(|service| service.is_member(from));
        let is_member = service.or_else(|| self.raft.read().as_ref().map(|raft| raft.is_member(*from)));
        if is_member.unwrap_or_default() { Asker::Member } else { Asker::Stranger }
    }

    async fn answer_call(&self, from: PeerId, call: Call) -> Result<Reply, WireError> {
        let raft = self.raft.read().clone();
        if let (Call::Members, Some(raft)) = (&call, raft) {
            return Ok(Reply::Members(raft.members().await));
        }
        let donor = self.donor.read().clone();
        // Open to whoever knows the secret, by the policy; answered as soon as there is a state.
        let call = match (donor, call) {
            (Some(donor), Call::Shards(ask)) => {
                return donor.answer(from, self.asker(&from), ask).await.map(Reply::Shards);
            }
            (Some(donor), Call::Manifest { at_least }) => {
                let manifest = donor.manifest(from, self.asker(&from), at_least).await;
                return manifest.map(|(index, manifest)| Reply::Manifest { index, manifest });
            }
            (_, call) => call,
        };
        let service = self.service.read().clone();
        let Some(service) = service else {
            return Err(WireError::new(ErrorClass::Unavailable, "this peer is still starting"));
        };
        self.check(service.as_ref(), &from, access(&call))?;
        service.answer(from, call).await
    }

    /// Whether `from` is answered, by the policy.
    fn check(&self, service: &dyn PeerService, from: &PeerId, access: Access) -> Result<(), WireError> {
        let unavailable = |reason: String| Err(WireError::new(ErrorClass::Unavailable, reason));
        let is_member = service.is_member(from);
        match access {
            Access::Open => Ok(()),
            Access::Newcomers if is_member => Ok(()),
            Access::Newcomers if !service.trusts(from) => Err(refusal(from)),
            Access::Newcomers if !self.newcomers.may_come() => {
                unavailable("too many peers ask to join; try again in a moment".to_owned())
            }
            // It may have joined a moment ago, and this peer is behind: worth another try.
            Access::Members | Access::TrustedMembers if !is_member => {
                unavailable(format!("peer {from} is not a member of this cluster"))
            }
            Access::TrustedMembers if !service.trusts(from) => Err(refusal(from)),
            Access::Newcomers | Access::Members | Access::TrustedMembers => Ok(()),
        }
    }
}

#[async_trait]
impl CallHandler for CallServer {
    async fn handle(&self, from: PeerId, _purpose: Purpose, body: Bytes) -> Bytes {
        let answer = match decode_incoming(&body) {
            Ok(Incoming::Raft(call)) => {
                let raft = self.raft.read().clone();
                let reply = match raft {
                    Some(raft) => raft.receive(from, *call).await,
                    None => RaftReply::Refused("this peer is still starting".to_owned()),
                };
                encode_raft_reply(&reply)
            }
            Ok(Incoming::Call(call)) => encode_reply(&self.answer_call(from, *call).await),
            Err(error) => {
                tracing::debug!(peer = %from, %error, "a peer sent a malformed message");
                encode_reply(&Err(WireError::from_error(ErrorClass::Invalid, &error)))
            }
        };
        answer.unwrap_or_else(|error| {
            tracing::error!(%error, "an answer could not be encoded");
            Bytes::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::is_refusal;

    /// Knows a member that it trusts, one that it does not, and a stranger that it trusts.
    struct Wary {
        friend: PeerId,
        admitted_by_others: PeerId,
        invited: PeerId,
    }

    #[async_trait]
    impl PeerService for Wary {
        async fn answer(&self, _from: PeerId, _call: Call) -> Result<Reply, WireError> {
            Ok(Reply::Done)
        }

        fn is_member(&self, peer: &PeerId) -> bool {
            [self.friend, self.admitted_by_others].contains(peer)
        }

        fn trusts(&self, peer: &PeerId) -> bool {
            [self.friend, self.invited].contains(peer)
        }
    }

    #[tokio::test]
    async fn members_order_and_only_trusted_ones_see_and_move_what_is_here() {
        let [friend, admitted_by_others, invited, stranger] = [(); 4].map(|()| PeerId::random());
        let server = CallServer::default();
        server.serve_calls(Arc::new(Wary { friend, admitted_by_others, invited }));
        // Whether a call is answered, refused for lack of trust, or put off.
        let mut seen = Vec::new();
        for call in [Call::Id, Call::Reserve, Call::ReadIndex, Call::CollectGarbage] {
            let mut row = String::new();
            for from in [friend, admitted_by_others, invited, stranger] {
                row.push(match server.answer_call(from, call.clone()).await {
                    Ok(_) => '+',
                    Err(error) if is_refusal(&error) => 'x',
                    Err(_) => '-',
                });
            }
            seen.push(row);
        }
        assert_eq!(seen, ["++++", "+++x", "++--", "+x--"]);
    }
}

//! `peers`: the members of the cluster.

use cluster_types::parse_peer_id;

use super::Context;
use crate::args::PeersCommand;
use crate::failure::Failure;

/// Does what was asked.
pub(crate) async fn run(command: PeersCommand, context: &Context) -> Result<(), Failure> {
    match command {
        PeersCommand::Ls => context.show_all(context.client.peers().await?).await,
        PeersCommand::Rm { peer } => {
            let peer = parse_peer_id(&peer).map_err(|error| Failure::local("parsing peer ID", &error))?;
            Ok(context.client.remove_peer(&peer.to_base58()).await?)
        }
    }
}

//! `ipfs`: the nodes beside the peers.

use super::Context;
use crate::args::IpfsCommand;
use crate::failure::Failure;

/// Does what was asked.
pub(crate) async fn run(command: IpfsCommand, context: &Context) -> Result<(), Failure> {
    let IpfsCommand::Gc { local } = command;
    context.output.show(&context.client.collect_garbage(local).await?)
}

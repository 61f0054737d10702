//! `recover`: tries again what failed.

use super::Context;
use crate::args::RecoverArguments;
use crate::failure::Failure;

/// Does what was asked.
pub(crate) async fn run(arguments: RecoverArguments, context: &Context) -> Result<(), Failure> {
    match arguments.cid {
        Some(cid) => context.output.show(&context.client.recover(&cid, arguments.local).await?),
        None => context.show_all(context.client.recover_all(arguments.local).await?).await,
    }
}

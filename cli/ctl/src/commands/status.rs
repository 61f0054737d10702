//! `status`: how pins are doing.

use cluster_types::StatusFilter;

use super::Context;
use crate::args::StatusArguments;
use crate::failure::Failure;

/// How many CIDs one request asks for: with the longest usual ones its head stays below the 4 KiB peers read.
const CIDS_PER_REQUEST: usize = 32;

/// Does what was asked.
pub(crate) async fn run(arguments: StatusArguments, context: &Context) -> Result<(), Failure> {
    let StatusArguments { cids, local, filter, search } = arguments;
    match cids.as_slice() {
        [] => {
            if StatusFilter::parse(&filter).is_none() {
                let text = format!("{filter:?} names no status");
                return Err(Failure::Local { doing: "parsing the filter", text });
            }
            context.show_all(context.client.statuses(&search.among(&filter), local).await?).await
        }
        [cid] => context.output.show(&context.client.status(cid, local).await?),
        many => {
            for group in many.chunks(CIDS_PER_REQUEST) {
                context.show_all(context.client.statuses_of(group, local).await?).await?;
            }
            Ok(())
        }
    }
}

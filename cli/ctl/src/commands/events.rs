//! `events`: what lost when writes made apart were merged.

use cluster_types::Event;
use futures::StreamExt;

use super::Context;
use crate::args::EventsArguments;
use crate::failure::Failure;

/// Does what was asked, in as many requests as it takes.
pub(crate) async fn run(arguments: EventsArguments, context: &Context) -> Result<(), Failure> {
    let EventsArguments { limit: mut left, mut before } = arguments;
    while left > 0 {
        let wanted = left.min(Event::MAX_LIMIT);
        let mut events = context.client.events(before, wanted).await?;
        let mut seen = 0;
        while let Some(event) = events.next().await {
            let event = event?;
            before = Some(event.at());
            seen += 1;
            context.output.show(&event)?;
        }
        if seen < wanted {
            break;
        }
        left -= wanted;
    }
    Ok(())
}

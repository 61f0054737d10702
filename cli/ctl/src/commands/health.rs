//! `health`: connections, metrics, alerts and bandwidth.

use super::Context;
use crate::args::HealthCommand;
use crate::failure::Failure;
use crate::output::MetricNames;

/// Does what was asked.
pub(crate) async fn run(command: HealthCommand, context: &Context) -> Result<(), Failure> {
    match command {
        HealthCommand::Graph { file, all_ipfs_peers } => {
            context.output.graph(&context.client.connect_graph().await?, all_ipfs_peers, file.as_deref())
        }
        HealthCommand::Metrics { name: None } => {
            context.output.show(&MetricNames(context.client.metric_names().await?))
        }
        HealthCommand::Metrics { name: Some(name) } => context.output.show(&context.client.metrics(&name).await?),
        HealthCommand::Bandwidth => context.output.show(&context.client.bandwidth().await?),
        HealthCommand::Alerts => context.output.show(&context.client.alerts().await?),
    }
}

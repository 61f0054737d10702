//! `info`: what there is, and what is online.

use anyhow::Context;
use cluster_client::{Client, ClientConfig};
use cluster_peer::config::{
    ConfigError, ConfigFolder, IpfsConfig, ProcessEnvironment, follower_api, kubo_of_environment, load_follower,
    source_of, without_password,
};
use cluster_peer::{node_answers, own_token};

/// Runs the command.
pub(crate) fn run(cluster: &str, folder: &ConfigFolder) -> anyhow::Result<()> {
    let source = source_of(folder).context("reading the configuration")?.unwrap_or_default();
    let source = without_password(&source);
    let (availability, node) = match load_follower(folder, &ProcessEnvironment) {
        Ok(loaded) => (format!("Available ({source})"), loaded.config.ipfs),
        Err(ConfigError::SourceUnreachable { .. }) => {
            let node = kubo_of_environment(&ProcessEnvironment).context("reading the environment")?;
            (format!("failed retrieving configuration source ({source})"), node)
        }
        Err(error) => return Err(error).context("reading the configuration"),
    };
    let online = super::runtime()?.block_on(online(folder, &node))?;
    print!("{}", text(cluster, folder, &availability, online));
    Ok(())
}

/// Whether the peer and its IPFS node answer.
async fn online(folder: &ConfigFolder, node: &IpfsConfig) -> anyhow::Result<(bool, bool)> {
    let peer = client(folder)?.id().await.ok();
    let ipfs = match (node, &peer) {
        (IpfsConfig::Kubo(kubo), _) => node_answers(kubo).await,
        // It lives inside the peer.
        (IpfsConfig::Embedded(_), Some(id)) => id.ipfs.error.is_empty(),
        (IpfsConfig::Embedded(_), None) => false,
    };
    Ok((peer.is_some(), ipfs))
}

/// Speaks to the peer of a folder.
pub(super) fn client(folder: &ConfigFolder) -> anyhow::Result<Client> {
    let api = follower_api(folder, &ProcessEnvironment).context("reading the environment")?;
    let [first, ..] = api.addresses.as_slice() else { anyhow::bail!("the peer's API has no address") };
    let config = ClientConfig {
        https: api.has_tls,
        // The certificate is for the names by which others call this peer, and the address is its own.
        insecure: true,
        bearer: api.basic_auth.as_ref().and_then(|users| own_token(users, folder, |_| true)),
        endpoints: api.addresses.clone(),
        ..ClientConfig::new(first.clone())
    };
    Client::new(config).context("preparing to ask the peer")
}

fn text(cluster: &str, folder: &ConfigFolder, source: &str, (peer, ipfs): (bool, bool)) -> String {
    format!(
        "Information about follower peer for Cluster \"{cluster}\":\n\nConfig folder: {}\nConfig source URL: {source}\n\
         Cluster Peer online: {peer}\nIPFS peer online: {ipfs}\n",
        folder.path().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_original() {
        let folder = ConfigFolder::new("/home/ann/.ipfs-cluster-follow/maps");
        let shown = text("maps", &folder, "Available (https://example.org/c.json)", (true, false));
        assert_eq!(shown, include_str!("../../tests/golden/info.txt"));
    }
}

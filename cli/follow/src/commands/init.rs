//! `init`: a folder with an identity, and with a configuration that points to the cluster's own.

use std::process::ExitCode;

use anyhow::Context;
use cluster_peer::config::{ConfigFolder, IdentitySource, ProcessEnvironment, ensure_identity, write_source};

use crate::args::InitArguments;

/// Runs the command.
pub(crate) fn run(init: &InitArguments, cluster: &str, folder: &ConfigFolder) -> anyhow::Result<ExitCode> {
    if !write(&init.url, &init.gateway.gateway, cluster, folder)? {
        eprintln!(
            "The cluster \"{cluster}\" is followed already.\nTo begin anew, remove {} first.",
            folder.path().display()
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the folder of a cluster; returns whether that was to be done, and touches nothing otherwise. What another `init`
/// that was killed left behind is used.
pub(super) fn write(url: &str, gateway: &str, cluster: &str, folder: &ConfigFolder) -> anyhow::Result<bool> {
    if super::is_initialised(folder) {
        return Ok(false);
    }
    let source = source_url(url, gateway);
    if source != url {
        println!(
            "{url} is taken as a name that DNSLink leads from: the configuration is fetched from {source}.\n\
             If it is not meant so, write the whole URL, with http:// or https:// in front. (IPFS_GATEWAY names another \
             gateway.)\n"
        );
    }
    folder.create().context("creating the folder")?;
    let _lock = super::lock(folder)?;
    if super::is_initialised(folder) {
        return Ok(false);
    }
    ensure_identity(folder, &IdentitySource::of_environment(&ProcessEnvironment).context("reading the identity")?)
        .context("writing the identity")?;
    println!("Identity written to {}.", folder.identity_file().display());
    write_source(folder, &source).context("writing the configuration")?;
    println!("Configuration written to {}.", folder.config_file().display());
    println!("Cluster \"{cluster}\" follower peer initialized.\n");
    println!("Start it with \"ipfs-cluster-follow {cluster} run\", when your IPFS daemon runs.");
    Ok(true)
}

/// The URL of a configuration: as it was given, or what a gateway makes of a name.
fn source_url(text: &str, gateway: &str) -> String {
    let has_scheme = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    if has_scheme(text) {
        return text.to_owned();
    }
    let scheme = if has_scheme(gateway) { "" } else { "http://" };
    format!("{scheme}{}/ipns/{text}", gateway.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_through_the_gateway() {
        assert_eq!(source_url("https://a.org/c.json", "g"), "https://a.org/c.json");
        assert_eq!(source_url("a.org", "127.0.0.1:8080"), "http://127.0.0.1:8080/ipns/a.org");
        assert_eq!(source_url("a.org", "https://g.org/"), "https://g.org/ipns/a.org");
    }
}

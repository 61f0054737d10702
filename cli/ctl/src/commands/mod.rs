//! One file per command group: ask the API, print the answer.

mod add;
mod events;
mod health;
mod ipfs;
mod peers;
mod pin;
mod recover;
mod status;
mod wait;

use std::time::Duration;

use clap::CommandFactory;
use cluster_client::{Client, ClientConfig, Items};
use cluster_types::{Multiaddr, parse_address};
use futures::StreamExt;

use crate::args::{Arguments, Command};
use crate::failure::Failure;
use crate::output::{Output, PeerVersion, Show};

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context {
    client: Client,
    output: Output,
}

impl Context {
    /// Prints items as they come.
    async fn show_all<T: Show>(&self, mut items: Items<T>) -> Result<(), Failure> {
        while let Some(item) = items.next().await {
            self.output.show(&item?)?;
        }
        Ok(())
    }
}

/// Does what was asked.
pub(crate) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    if let Command::Commands = arguments.command {
        let mut paths = Vec::new();
        collect_paths(&Arguments::command(), "", &mut paths);
        return output.plain(&paths);
    }
    let config = client_config(&arguments)?;
    if arguments.debug {
        eprintln!("debug: https {}, endpoints {:?}", config.https, config.endpoints);
    }
    let context = Context { client: Client::new(config)?, output };
    match arguments.command {
        Command::Id => output.show(&context.client.id().await?),
        Command::Version => output.show(&PeerVersion { version: context.client.version().await? }),
        Command::Peers(command) => peers::run(command, &context).await,
        Command::Add(arguments) => add::run(*arguments, &context).await,
        Command::Pin(command) => pin::run(command, &context).await,
        Command::Status(arguments) => status::run(arguments, &context).await,
        Command::Recover(arguments) => recover::run(arguments, &context).await,
        Command::Health(command) => health::run(command, &context).await,
        Command::Events(arguments) => events::run(arguments, &context).await,
        Command::Ipfs(command) => ipfs::run(command, &context).await,
        Command::Commands => Ok(()),
    }
}

/// The paths of all commands below `command`, each before its own.
fn collect_paths(command: &clap::Command, above: &str, paths: &mut Vec<String>) {
    let path = if above.is_empty() { command.get_name().to_owned() } else { format!("{above} {}", command.get_name()) };
    for below in command.get_subcommands() {
        paths.push(format!("{path} {}", below.get_name()));
        collect_paths(below, &path, paths);
    }
}

/// Where and how to reach a peer, from the global flags.
fn client_config(arguments: &Arguments) -> Result<ClientConfig, Failure> {
    let mut endpoints: Vec<Multiaddr> = Vec::new();
    for host in &arguments.host {
        match parse_address(host.trim()) {
            Ok(address) => endpoints.push(address),
            Err(error) => return Err(Failure::local("parsing the API multiaddress", &error)),
        }
    }
    let basic_auth = arguments.basic_auth.as_ref().map(|hidden| hidden.0.as_str());
    let basic_auth = basic_auth.filter(|credentials| !credentials.is_empty()).map(|credentials| {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        (user.to_owned(), password.to_owned())
    });
    Ok(ClientConfig {
        endpoints,
        https: arguments.https || (basic_auth.is_some() && !arguments.force_http),
        insecure: arguments.no_check_certificate,
        basic_auth,
        timeout: (arguments.timeout > 0).then(|| Duration::from_secs(arguments.timeout)),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(line: &str) -> Result<ClientConfig, Failure> {
        client_config(&Arguments::try_parse_from(line.split_whitespace()).unwrap())
    }

    #[test]
    fn credentials_imply_https_unless_http_is_forced() {
        let secure = config("ctl --basic-auth user:pass:word id").unwrap();
        assert!(secure.https);
        assert_eq!(secure.basic_auth, Some(("user".to_owned(), "pass:word".to_owned())));
        let forced = config("ctl --basic-auth user -f id").unwrap();
        assert!(!forced.https);
        assert_eq!(forced.basic_auth, Some(("user".to_owned(), String::new())));
        assert!(!config("ctl id").unwrap().https);
    }

    #[test]
    fn hosts_are_a_comma_list() {
        let hosts = config("ctl -l /ip4/127.0.0.1/tcp/1,/dns4/a/tcp/2 -t 3 id").unwrap();
        assert_eq!(hosts.endpoints.len(), 2);
        assert_eq!(hosts.timeout, Some(Duration::from_secs(3)));
        let socket = config("ctl --host /unix/run/cluster/api.sock id").unwrap();
        assert_eq!(socket.endpoints[0].to_string().matches("run").count(), 1);
        assert!(Client::new(socket).is_ok());
        assert_eq!(config("ctl --host nonsense id").unwrap_err().exit_code(), 1);
    }

    #[test]
    fn endpoints_over_libp2p_are_refused_in_plain_words() {
        let address = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let error = Client::new(config(&format!("ctl --host {address} id")).unwrap()).unwrap_err();
        assert!(error.to_string().contains("libp2p"), "{error}");
    }

    #[test]
    fn every_command_path_is_listed() {
        let mut paths = Vec::new();
        collect_paths(&Arguments::command(), "", &mut paths);
        for path in
            ["ipfs-cluster-ctl id", "ipfs-cluster-ctl pin", "ipfs-cluster-ctl pin add", "ipfs-cluster-ctl ipfs gc"]
        {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }
}

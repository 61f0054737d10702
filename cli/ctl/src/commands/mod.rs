//! One file per command group: ask the API, print the answer.

mod add;
mod events;
mod health;
mod ipfs;
mod peers;
mod pin;
mod recover;
mod status;
mod token;
mod wait;

use std::time::Duration;

use clap::CommandFactory;
use cluster_client::{Client, ClientConfig, Items};
use cluster_types::{Multiaddr, parse_address};
use futures::StreamExt;

use crate::args::{Arguments, Command, PeersCommand, PinCommand};
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
pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    if let Some(done) = tell(&arguments.command, output) {
        return done;
    }
    let config = client_config(&arguments)?;
    if arguments.debug {
        eprintln!("debug: https {}, endpoints {:?}", config.https, config.endpoints);
    }
    let context = Context { client: Client::connect(config).await?, output: output.clone() };
    let Some(seconds) = arguments.watch else { return ask(arguments.command, &context).await };
    if !is_watchable(&arguments.command) {
        let text = "it can be used with status, recover, pin ls, peers ls and health".to_owned();
        return Err(Failure::Local { doing: "reading --watch", text });
    }
    loop {
        context.output.begin_again()?;
        ask(arguments.command.clone(), &context).await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Does what needs no peer; nothing if the command needs one.
fn tell(command: &Command, output: &Output) -> Option<Result<(), Failure>> {
    let tree = Arguments::command();
    let mut text = Vec::new();
    let written = match command {
        Command::Commands => {
            let mut paths = Vec::new();
            collect_paths(&tree, "", &mut paths);
            return Some(output.plain(&paths));
        }
        Command::Completions { shell } => cluster_terminal::completions(*shell, &tree, &mut text),
        Command::Man { folder } => cluster_terminal::man_pages(&tree, folder.as_deref(), &mut text),
        Command::Id
        | Command::Peers(_)
        | Command::Add(_)
        | Command::Pin(_)
        | Command::Status(_)
        | Command::Recover(_)
        | Command::Version
        | Command::Health(_)
        | Command::Events(_)
        | Command::Token(_)
        | Command::Ipfs(_) => return None,
    };
    let written = written.map_err(|error| Failure::local("writing it", &error));
    Some(written.and_then(|()| output.raw(&text)))
}

/// Asks a peer, and prints what it answers.
async fn ask(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Id => context.output.show(&context.client.id().await?),
        Command::Version => context.output.show(&PeerVersion { version: context.client.version().await? }),
        Command::Peers(command) => peers::run(command, context).await,
        Command::Add(arguments) => add::run(*arguments, context).await,
        Command::Pin(command) => pin::run(command, context).await,
        Command::Status(arguments) => status::run(arguments, context).await,
        Command::Recover(arguments) => recover::run(arguments, context).await,
        Command::Health(command) => health::run(command, context).await,
        Command::Events(arguments) => events::run(arguments, context).await,
        Command::Ipfs(command) => ipfs::run(command, context).await,
        Command::Token(arguments) => token::run(arguments, context).await,
        Command::Commands | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

/// Whether asking again and again makes sense.
fn is_watchable(command: &Command) -> bool {
    match command {
        Command::Status(_)
        | Command::Recover(_)
        | Command::Health(_)
        | Command::Pin(PinCommand::Ls { .. })
        | Command::Peers(PeersCommand::Ls) => true,
        Command::Id
        | Command::Peers(_)
        | Command::Add(_)
        | Command::Pin(_)
        | Command::Version
        | Command::Events(_)
        | Command::Ipfs(_)
        | Command::Token(_)
        | Command::Commands
        | Command::Completions { .. }
        | Command::Man { .. } => false,
    }
}

/// The paths of all commands below `command`, each before its own.
fn collect_paths(command: &clap::Command, above: &str, paths: &mut Vec<String>) {
    let path = if above.is_empty() { command.get_name().to_owned() } else { format!("{above} {}", command.get_name()) };
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() || below.get_name() == "commands") {
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
    let bearer = arguments.token.as_ref().map(|hidden| hidden.0.clone()).filter(|token| !token.is_empty());
    let has_credentials = basic_auth.is_some() || bearer.is_some();
    Ok(ClientConfig {
        endpoints,
        https: arguments.https || (has_credentials && !arguments.force_http),
        insecure: arguments.no_check_certificate,
        basic_auth,
        bearer,
        ca_file: arguments.ca_cert.clone(),
        timeout: (arguments.timeout > 0).then(|| Duration::from_secs(arguments.timeout)),
        secret: arguments.secret.0.clone(),
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
        let token = config("ctl --token abc --ca-cert /x id").unwrap();
        assert!(token.https && token.bearer.as_deref() == Some("abc") && token.ca_file.is_some());
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

//! Where connections come from: sockets of TCP and unix, several at once, and streams that are made elsewhere.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cluster_types::{Multiaddr, PeerId, Protocol};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};
use tokio_util::either::Either;

use crate::error::ApiError;

/// A connection that something else than a socket of this machine carries.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// Such a connection, and whose it is.
pub struct Carried {
    /// The connection.
    pub stream: Box<dyn ByteStream>,
    /// Who asks. Anybody can have any number of these.
    pub peer: PeerId,
    /// Where it asks from, if that is known: connections are counted by it.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("peer", &self.peer).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Such connections as they come.
pub type ByteStreams = mpsc::Receiver<Carried>;

/// A connection of any kind.
pub(crate) type Socket = Either<Either<TcpStream, UnixStream>, Box<dyn ByteStream>>;

/// Where a connection came from, and to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// The client's address, where there is one.
    pub(crate) address: Option<IpAddr>,
    /// Its id, where it has one.
    pub(crate) peer: Option<PeerId>,
    /// Whether it came by an address at all: a page can be made to speak to one by a name, to a socket file never.
    pub(crate) by_address: bool,
    /// Whether that address is one that only this machine reaches.
    pub(crate) on_loopback: bool,
    /// Whether what carries it is encrypted already.
    pub(crate) is_encrypted: bool,
}

/// Whom a connection counts for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Client {
    /// Everybody at an address.
    Ip(IpAddr),
    /// A peer whose address is not known.
    Peer(PeerId),
}

impl Arrival {
    /// Whom it counts for; nobody if it came by a file of this machine.
    pub(crate) fn client(self) -> Option<Client> {
        self.address.map(Client::Ip).or(self.peer.map(Client::Peer))
    }
}

/// A socket that is listened on.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket; its file is removed at the end.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file.
        _file: SocketFile,
    },
    /// Streams that are made elsewhere, and encrypted there.
    Streams(Mutex<ByteStreams>),
}

/// Removes the file of a unix socket when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    /// Who may write to the file may ask: users and the group, as far as they may, and nobody else.
    fn close_to_others(&self) -> io::Result<()> {
        let mode = std::fs::metadata(&self.0)?.permissions().mode();
        std::fs::set_permissions(&self.0, Permissions::from_mode(mode & 0o770))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a multiaddress asks for.
enum Place {
    Ip(SocketAddr),
    Name(String, u16),
    Path(PathBuf),
}

impl Listener {
    /// Listens on `address`; also the address that was taken, with the port that the system chose.
    pub(crate) async fn bind(address: &Multiaddr) -> Result<(Self, Multiaddr), ApiError> {
        let failed = |cause| ApiError::Bind { address: address.clone(), cause };
        match place(address).ok_or_else(|| ApiError::UnsupportedAddress { address: address.clone() })? {
            Place::Ip(socket) => tcp(TcpListener::bind(socket).await.map_err(failed)?).map_err(failed),
            Place::Name(name, port) => {
                tcp(TcpListener::bind((name.as_str(), port)).await.map_err(failed)?).map_err(failed)
            }
            Place::Path(path) => {
                remove_stale(&path).await;
                let listener = UnixListener::bind(&path).map_err(failed)?;
                let file = SocketFile(path);
                file.close_to_others().map_err(failed)?;
                Ok((Self::Unix { listener, _file: file }, address.clone()))
            }
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Arrival)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, client) = listener.accept().await?;
                // Items of a stream are small and wanted at once.
                socket.set_nodelay(true)?;
                // The listener may be on all addresses; this is the one that was meant.
                let on_loopback = socket.local_addr()?.ip().to_canonical().is_loopback();
                let address = Some(client.ip().to_canonical());
                let from = Arrival { address, by_address: true, on_loopback, ..Arrival::default() };
                Ok((Either::Left(Either::Left(socket)), from))
            }
            Self::Unix { listener, .. } => {
                Ok((Either::Left(Either::Right(listener.accept().await?.0)), Arrival::default()))
            }
            Self::Streams(streams) => match streams.lock().await.recv().await {
                Some(Carried { stream, peer, address }) => {
                    let from = Arrival { address, peer: Some(peer), is_encrypted: true, ..Arrival::default() };
                    Ok((Either::Right(stream), from))
                }
                // Nobody makes any more; the other listeners go on.
                None => std::future::pending().await,
            },
        }
    }
}

fn tcp(listener: TcpListener) -> io::Result<(Listener, Multiaddr)> {
    let socket = listener.local_addr()?;
    let mut address = match socket.ip() {
        IpAddr::V4(ip) => Multiaddr::from(Protocol::Ip4(ip)),
        IpAddr::V6(ip) => Multiaddr::from(Protocol::Ip6(ip)),
    };
    address.push(Protocol::Tcp(socket.port()));
    Ok((Listener::Tcp(listener), address))
}

/// Whether an API can listen on an address of this kind; the system may still refuse it.
pub fn is_listen_address(address: &Multiaddr) -> bool {
    place(address).is_some()
}

fn place(address: &Multiaddr) -> Option<Place> {
    let mut parts = address.iter();
    let host = parts.next()?;
    if let Protocol::Unix(path) = &host {
        return parts.next().is_none().then(|| Place::Path(PathBuf::from(path.as_ref())));
    }
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    if parts.next().is_some_and(|part| !matches!(part, Protocol::Http)) {
        return None;
    }
    if let Protocol::Ip4(ip) = host {
        Some(Place::Ip((ip, port).into()))
    } else if let Protocol::Ip6(ip) = host {
        Some(Place::Ip((ip, port).into()))
    } else if let Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) = host {
        Some(Place::Name(name.into_owned(), port))
    } else {
        None
    }
}

/// Removes a socket file that a dead process left behind; one that is answered on stays.
async fn remove_stale(path: &Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if !is_socket {
        return;
    }
    if let Err(error) = UnixStream::connect(path).await
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        // If this fails, binding says why.
        let _ = std::fs::remove_file(path);
    }
}

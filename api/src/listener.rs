//! Sockets to listen on: TCP and unix, several at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use cluster_types::{Multiaddr, Protocol};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::error::ApiError;

/// A connection of either kind.
pub(crate) type Socket = Either<TcpStream, UnixStream>;

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
}

/// Removes the file of a unix socket when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

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
                Ok((Self::Unix { listener, _file: SocketFile(path) }, address.clone()))
            }
        }
    }

    /// Whether only this machine reaches it by a name: a page can be made to speak to it, a socket file never.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|socket| socket.ip().is_loopback()),
            Self::Unix { .. } => false,
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // Items of a stream are small and wanted at once.
                socket.set_nodelay(true)?;
                Ok(Either::Left(socket))
            }
            Self::Unix { listener, .. } => Ok(Either::Right(listener.accept().await?.0)),
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

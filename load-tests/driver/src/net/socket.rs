//! Client sockets: non-blocking, spread over loopback source addresses, tuned where a scenario asks for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Source addresses in use. One address has 28,000 ports towards one destination; ports of closed connections rest
/// for a minute, so that rounds of thousands need more than one address.
const SOURCES: usize = 64;

/// What a scenario changes about its sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tune {
    /// Like a peer at the end of a real line that reads nothing: 1,400-byte segments and the least receive buffer. With
    /// loopback's 64 KiB segments the kernel would take megabytes per socket before the server felt anything.
    pub narrow: bool,
    /// Third byte of the source addresses, so that scenarios do not share ports.
    pub subnet: u8,
}

/// Starts connecting to `to`; the stream is writable once that is done.
pub fn connect(to: SocketAddr, number: usize, tune: Tune) -> Result<TcpStream> {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).context("no socket")?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if tune.narrow {
        socket.set_recv_buffer_size(1)?;
        socket.set_tcp_mss(1_400)?;
    }
    if to.ip().is_loopback() {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        let last = (number % SOURCES + 1) as u8;
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, tune.subnet.max(1), last));
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error).context("connect"),
    }
    Ok(TcpStream::from_std(socket.into()))
}

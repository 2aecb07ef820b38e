//! A network that misbehaves when told: a proxy for one TCP address that cuts, freezes, delays and restores.
//!
//! Runs on a thread and a runtime of its own, so that it serves tests with and without a runtime. Included where it is
//! needed with `#[path]`.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests spawn as they like; what is spawned here ends with its thread")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Chunks on their way in one direction of one connection; then reading pauses, as a full network makes it.
const IN_FLIGHT: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// Counts cuts: a connection made under another number ends.
    cuts: u64,
    is_cut: bool,
    is_frozen: bool,
    delay: Duration,
}

/// A way to one address. Dropping it cuts everything.
#[derive(Debug)]
pub(crate) struct Net {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _stop: oneshot::Sender<()>,
}

impl Net {
    /// Listens on loopback and leads to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, forecast) = watch::channel(Weather::default());
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = accept(listener, target, forecast) => {}
                        _ = stopped => {}
                    }
                });
            })
            .unwrap();
        Self { address, weather, _stop: stop }
    }

    /// Where to connect instead of to the target.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and every new one at once.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| {
            weather.cuts += 1;
            weather.is_cut = true;
        });
    }

    /// Lets nothing through, in either direction, and closes nothing.
    pub(crate) fn freeze(&self) {
        self.weather.send_modify(|weather| weather.is_frozen = true);
    }

    /// Lets everything through that much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Good weather: what was frozen goes on, new connections are made.
    pub(crate) fn restore(&self) {
        self.weather.send_modify(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, forecast: watch::Receiver<Weather>) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        if forecast.borrow().is_cut {
            continue;
        }
        tokio::spawn(carry(near, target, forecast.clone()));
    }
}

async fn carry(near: TcpStream, target: SocketAddr, forecast: watch::Receiver<Weather>) {
    let cuts = forecast.borrow().cuts;
    let mut cut = forecast.clone();
    let connection = async {
        let far = TcpStream::connect(target).await.ok()?;
        near.set_nodelay(true).ok()?;
        far.set_nodelay(true).ok()?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(one_way(near_in, far_out, forecast.clone()), one_way(far_in, near_out, forecast.clone()));
        Some(())
    };
    tokio::select! {
        _ = connection => {}
        _ = cut.wait_for(|weather| weather.cuts != cuts) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut forecast: watch::Receiver<Weather>) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let delays = forecast.clone();
    let read = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delays.borrow().delay;
            if sender.send((due, buffer[..n].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if forecast.wait_for(|weather| !weather.is_frozen).await.is_err() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The end of the stream travels like everything else.
        if forecast.wait_for(|weather| !weather.is_frozen).await.is_ok() {
            let _closed = to.shutdown().await;
        }
    };
    tokio::join!(read, write);
}

//! A bare tungstenite echo server: accept, one task, every message back.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Serves until ended.
pub async fn run(read_buffer: Option<usize>) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener: TcpListener = socket.listen(4_096)?;
    super::announce(listener.local_addr()?);
    let config = read_buffer
        .map(|bytes| WebSocketConfig::default().read_buffer_size(bytes).write_buffer_size(0));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(session(stream, config));
    }
}

async fn session(stream: TcpStream, config: Option<WebSocketConfig>) {
    stream.set_nodelay(true).ok();
    // A peer that leaves in whatever way ends its task; there is nobody to tell.
    let Ok(mut socket) = accept_async_with_config(stream, config).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

//! Picks the route: pure, and generic over what a route leads to.
//!
//! A message goes to the custom route whose key is exactly the value of the API's route selection expression, else to
//! `$default`, else nowhere (specification 3.4). `$connect` and `$disconnect` are never reached by content.

pub mod websocket;

pub use websocket::{Match, WebSocketRoutes};

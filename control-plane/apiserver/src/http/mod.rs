//! HTTP: what comes in, what goes out, and the listener.

pub mod answer;
pub mod body;
pub mod call;
pub mod encode;
pub mod listener;
pub mod negotiate;
pub mod request;
pub mod respond;
pub mod tls;
pub mod unreadable;
pub mod websocket;

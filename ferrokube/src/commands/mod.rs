//! One file a command. Each takes what was typed, says what it does, and leaves nothing half done.

pub mod agent;
pub mod assets;
pub mod bgp;
pub mod check;
pub mod demo;
pub mod down;
pub mod image;
pub mod install;
pub mod join;
pub mod kubectl;
pub mod logs;
pub mod ls;
pub mod misc;
pub mod node;
pub mod reset;
pub mod server;
pub mod status;
pub mod token;
pub mod up;

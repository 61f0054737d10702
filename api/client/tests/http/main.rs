//! The client over real sockets, against a server that answers prepared bytes.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should say where")]

mod answers;
mod server;
mod uploads;

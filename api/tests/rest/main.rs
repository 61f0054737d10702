//! The REST API over real sockets, against a scripted cluster.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should say where")]

mod fake;
mod full;
mod golden;
mod guarded;
mod harness;
mod hostile;
mod leaks;
mod lifecycle;
mod pinsvc;
mod proxy;
mod schema;
mod scrape;
mod tokens;
mod uploads;
mod walk;

//! Real processes on this machine: killed, restarted, lied to; with real Kubo where there is one.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::print_stdout, reason = "seeds and figures are for whoever runs the test")]

mod apart;
mod bad_input;
mod catchup;
mod cids;
mod client;
mod crash;
mod destinations;
mod digest;
mod drop_in;
mod endpoints;
mod followers;
mod founding;
mod gc;
mod gone;
mod guarded;
mod history;
mod joining;
mod kubo;
mod pages;
mod partition;
mod pinsvc;
mod proxy;
mod recover;
mod removed;
mod signals;
mod state;
mod stats;
mod together;
mod tokens;
mod torn;
mod trust;

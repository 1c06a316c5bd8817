//! An external processor (`ext_proc`) for `agent-meter bench`: reads of each call what the filter reads, and
//! changes nothing.
//!
//! Prints its address and how it was built when it listens. When its standard input ends it prints how many successful calls it
//! has understood, and ends.

mod exchange;
mod service;
mod wire;

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, stdin};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::service::Processor;

/// One thread serves the one connection of Envoy's one worker, without a thread to wake up.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{} {build}", listener.local_addr()?);
    let processor = Processor::default();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (mut input, mut ignored) = (stdin(), Vec::new());
    tokio::select! {
        served = Server::builder().serve_with_incoming(processor.clone(), incoming) => served?,
        ended = input.read_to_end(&mut ignored) => drop(ended?),
    }
    println!("{}", processor.understood());
    Ok(())
}

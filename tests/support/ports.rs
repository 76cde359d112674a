//! Ports for servers that can't take one from the kernel, and that come back to theirs after a kill.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::expect_used)] // helpers of tests, outside their functions

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which Linux gives ports by itself (32768 on). A port of that range is
/// taken by anybody's outgoing connection while its server is down, and a connection to it can
/// even connect to itself.
const FIRST: u32 = 10_000;
const PORTS: u32 = 22_000;

/// This many listeners on ports that nobody has, all held at once, so that no port is given twice.
pub(crate) fn hold(count: usize) -> Vec<TcpListener> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Tests of other processes begin elsewhere, and so does this file when it is in a test twice:
    // the port of a server that is down for the moment is free, and yet not to be given.
    let copy = u32::try_from(module_path!().len()).expect("a short path");
    let begin = std::process::id().wrapping_mul(7919).wrapping_add(copy.wrapping_mul(5003));
    let tries = (0..PORTS).map(|_| {
        let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        u16::try_from(FIRST + number).expect("a port")
    });
    let held: Vec<TcpListener> =
        tries.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    assert_eq!(held.len(), count, "no ports are left");
    held
}

/// A port nobody listens on: for a server, or for a refused connection.
pub(crate) fn free_port() -> u16 {
    hold(1)[0].local_addr().expect("its address").port()
}

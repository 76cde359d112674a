//! The fault proxy of the tests does what it says, and its counters say so.

#![allow(clippy::unwrap_used)] // helpers of tests, outside their functions

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use support::eventually;
use support::proxy::{Conditions, Count, Proxy, Way};
use webmon::runtime::mono;

/// Longest wait for bytes in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy to a server that is the test itself.
fn pair() -> (Proxy, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::up(&server.local_addr().unwrap().to_string());
    (proxy, server)
}

/// A connection through the proxy: the client's end and the server's.
fn connect(proxy: &Proxy, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address).unwrap();
    let (accepted, _) = server.accept().unwrap();
    for stream in [&client, &accepted] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, accepted)
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// What a peer sees of an end: `Ok` for an orderly one.
fn end(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map(|_| ()).map_err(|error| error.kind())
}

#[test]
fn it_forwards_both_ways_and_passes_the_end_on() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    let bytes = sample(300_000);
    let mut writer = client.try_clone().unwrap();
    let sent = bytes.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&sent).unwrap());
        assert!(receive(&mut accepted, bytes.len()) == bytes);
    });
    accepted.write_all(b"answer").unwrap();
    assert_eq!(receive(&mut client, 6), b"answer");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(end(&mut accepted), Ok(()));
    // The other way is still open.
    accepted.write_all(b"late").unwrap();
    assert_eq!(receive(&mut client, 4), b"late");
    drop(accepted);
    assert_eq!(end(&mut client), Ok(()));
    assert_eq!(proxy.count(Count::Forwarded), 300_010);
    assert_eq!(proxy.count(Count::Connections), 1);
    eventually("nothing stays open", || if proxy.open() == 0 { Ok(()) } else { Err(proxy.open()) });
}

#[test]
fn down_cuts_and_refuses_and_a_new_target_is_found() {
    let (proxy, server) = pair();
    let (mut client, _accepted) = connect(&proxy, &server);
    proxy.set_down();
    assert_eq!(end(&mut client), Ok(()));
    assert_eq!(proxy.count(Count::Cut), 1);
    let mut refused = TcpStream::connect(proxy.address).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(end(&mut refused), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.refused(), 1);

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.lead_to(&other.local_addr().unwrap().to_string());
    proxy.set_up();
    let (mut client, mut accepted) = connect(&proxy, &other);
    client.write_all(b"x").unwrap();
    assert_eq!(receive(&mut accepted, 1), b"x");

    drop(other);
    let mut unreachable = TcpStream::connect(proxy.address).unwrap();
    unreachable.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(end(&mut unreachable), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.count(Count::Unreachable), 1);
}

#[test]
fn latency_is_on_each_way_and_does_not_limit_the_rate() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    let latency = Duration::from_millis(150);
    let jitter = Duration::from_millis(50);
    proxy.set(Way::ToServer, Conditions { latency, jitter, ..Conditions::default() });
    // Less than what may be on the way.
    let bytes = sample(900_000);
    let begun = mono();
    client.write_all(&bytes).unwrap();
    assert!(receive(&mut accepted, bytes.len()) == bytes, "order is kept");
    let took = mono() - begun;
    assert!(took >= latency, "{took:?}");
    // One chunk of 16 KiB after the other would take 54 times the latency.
    assert!(took < 40 * latency, "{took:?}");
    assert_eq!(proxy.count(Count::Delayed), 900_000);
    accepted.write_all(b"answer").unwrap();
    assert_eq!(receive(&mut client, 6), b"answer");
    assert_eq!(proxy.count(Count::Delayed), 900_000, "the other way is as it was");
}

#[test]
fn bandwidth_is_kept() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    proxy.set_both(&Conditions { bandwidth: Some(100_000), ..Conditions::default() });
    let bytes = sample(50_000);
    let begun = mono();
    client.write_all(&bytes).unwrap();
    assert!(receive(&mut accepted, bytes.len()) == bytes);
    let took = mono() - begun;
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(proxy.count(Count::Throttled) >= 40_000);
}

#[test]
fn a_black_hole_swallows_and_stays_open_until_it_is_cleared() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    let (mut unharmed, mut other) = connect(&proxy, &server);
    proxy.set_both(&Conditions { black_hole: true, ..Conditions::default() });
    client.write_all(b"into the void").unwrap();
    eventually("it is swallowed", || match proxy.count(Count::Swallowed) {
        13 => Ok(()),
        count => Err(count),
    });
    // A new connection is taken too.
    let mut late = TcpStream::connect(proxy.address).unwrap();
    late.write_all(b"hello").unwrap();
    eventually("that too", || match proxy.count(Count::Swallowed) {
        18 => Ok(()),
        count => Err(count),
    });
    accepted.set_nonblocking(true).unwrap();
    let silence = accepted.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(silence, Err(ErrorKind::WouldBlock));
    accepted.set_nonblocking(false).unwrap();
    proxy.clear();
    assert_eq!(end(&mut client), Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut accepted), Err(ErrorKind::ConnectionReset));
    unharmed.write_all(b"x").unwrap();
    assert_eq!(receive(&mut other, 1), b"x", "who lost nothing goes on");
    assert_eq!(proxy.count(Count::Reset), 2);
}

#[test]
fn resets_are_resets() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    proxy.set(Way::ToServer, Conditions { reset: true, ..Conditions::default() });
    accepted.write_all(b"x").unwrap();
    assert_eq!(receive(&mut client, 1), b"x", "nothing to send, nothing to reset");
    client.write_all(b"x").unwrap();
    assert_eq!(end(&mut client), Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut accepted), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.count(Count::Reset), 1);
    proxy.clear();
    let (mut client, _accepted) = connect(&proxy, &server);
    eventually("it is through", || if proxy.open() == 1 { Ok(()) } else { Err(proxy.open()) });
    proxy.reset();
    assert_eq!(end(&mut client), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.count(Count::Reset), 2);
}

#[test]
fn slices_are_small_and_lose_nothing() {
    let (proxy, server) = pair();
    let (mut client, mut accepted) = connect(&proxy, &server);
    proxy.set_both(&Conditions { slice: Some(3), ..Conditions::default() });
    let bytes = sample(1000);
    client.write_all(&bytes).unwrap();
    let first = accepted.read(&mut [0; 1000]).unwrap();
    assert!(first < 1000, "{first}");
    assert!(receive(&mut accepted, 1000 - first) == bytes[first..]);
    assert_eq!(proxy.count(Count::Sliced), 333);
}

#[test]
fn a_data_limit_cuts_each_connection() {
    let (proxy, server) = pair();
    proxy.set(Way::ToClient, Conditions { limit: Some(100), ..Conditions::default() });
    for cut in 1..=2 {
        let (mut client, mut accepted) = connect(&proxy, &server);
        client.write_all(&sample(500)).unwrap();
        receive(&mut accepted, 500);
        accepted.write_all(&sample(150)).unwrap();
        assert_eq!(receive(&mut client, 100), sample(100));
        assert_eq!(end(&mut client), Ok(()));
        assert_eq!(proxy.count(Count::Limited), cut);
    }
}

#[test]
fn corruption_flips_single_bits_the_same_way_for_each_seed() {
    let bytes = sample(100_000);
    let corrupted = |seed: u64| {
        let (proxy, server) = pair();
        proxy.set_seed(seed);
        let (mut client, mut accepted) = connect(&proxy, &server);
        let conditions = Conditions { corrupt_every: Some(1000), ..Conditions::default() };
        proxy.set(Way::ToServer, conditions);
        client.write_all(&bytes).unwrap();
        let received = receive(&mut accepted, bytes.len());
        let flipped: Vec<(usize, u8)> = (0..bytes.len())
            .map(|n| (n, bytes[n] ^ received[n]))
            .filter(|(_, x)| *x != 0)
            .collect();
        assert!(flipped.iter().all(|(_, bits)| bits.count_ones() == 1));
        assert_eq!(flipped.len() as u64, proxy.count(Count::Corrupted));
        assert!((50..200).contains(&flipped.len()), "{}", flipped.len());
        flipped
    };
    let first = corrupted(1);
    assert_eq!(first, corrupted(1));
    assert_ne!(first, corrupted(2));
}

//! A forwarder on loopback that can be down.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Lives until the test's process ends.
pub struct Proxy {
    pub address: SocketAddr,
    is_up: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    refused: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards to `target` when it is up; it begins down.
    #[allow(clippy::disallowed_methods)] // a test's proxy ends with the test's process
    pub fn down(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let is_up = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let refused = Arc::new(AtomicU64::new(0));
        let (up, streams, count) = (is_up.clone(), open.clone(), refused.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !up.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let pairs = [(&client, &server), (&server, &client)];
                for (from, to) in pairs {
                    let (from, to) =
                        (from.try_clone().expect("clone"), to.try_clone().expect("clone"));
                    std::thread::spawn(move || forward(from, to));
                }
                streams.lock().expect("streams").extend([client, server]);
            }
        });
        Self { address, is_up, open, refused }
    }

    pub fn set_up(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }

    /// Cuts what is open and refuses what comes.
    pub fn set_down(&self) {
        self.is_up.store(false, Ordering::SeqCst);
        for stream in self.open.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections refused so far: the proof that somebody met the fault.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

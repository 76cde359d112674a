//! A web server on loopback that counts what it is asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Pages = Arc<dyn Fn(&str) -> (u16, String) + Send + Sync>;

/// Lives until the test's process ends.
pub struct Web {
    pub address: SocketAddr,
    hits: Arc<Mutex<HashMap<String, u64>>>,
}

impl Web {
    /// Answers each path with what `pages` says: status and body. A status of 3xx takes the body
    /// as its `Location`.
    #[allow(clippy::disallowed_methods)] // a test's server ends with the test's process
    pub fn start(pages: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let hits: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let (counter, pages): (_, Pages) = (hits.clone(), Arc::new(pages));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counter, pages) = (counter.clone(), pages.clone());
                std::thread::spawn(move || answer(stream, &counter, &pages));
            }
        });
        Self { address, hits }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often `path` was answered.
    pub fn hits(&self, path: &str) -> u64 {
        self.hits.lock().expect("hits").get(path).copied().unwrap_or(0)
    }

    /// How often anything was answered.
    pub fn all_hits(&self) -> u64 {
        self.hits.lock().expect("hits").values().sum()
    }
}

fn answer(mut stream: TcpStream, hits: &Mutex<HashMap<String, u64>>, pages: &Pages) {
    let Ok(read) = stream.try_clone() else { return };
    let mut lines = BufReader::new(read).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    // The head ends with an empty line.
    if lines.find(String::is_empty).is_none() {
        return;
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let (status, body) = pages(&path);
    let (location, body) = if (300..400).contains(&status) {
        (format!("Location: {body}\r\n"), String::new())
    } else {
        (String::new(), body)
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // Counted before the answer is out: whoever has the answer finds it counted.
    *hits.lock().expect("hits").entry(path).or_default() += 1;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

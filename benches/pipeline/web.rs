//! nginx as the site, wrk as the reference.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::process::children_cpu_us;
use crate::report::say;
use crate::support;
use crate::support::daemon::Daemon;

/// nginx listens on 127.0.0.1 up to this: connections wait in TIME_WAIT for a minute, and there are
/// 28,000 ports per pair of addresses. A power of two is dealt out evenly by the sites' numbers.
pub(crate) const ADDRESSES: u32 = 8;

/// One worker, a page of 20 KB with the pattern's match near its end, http and https.
pub(crate) struct Nginx {
    _daemon: Daemon,
    dir: tempfile::TempDir,
    http: u16,
    https: u16,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().display();
        let mut page = "x".repeat(20_400);
        page.push_str("<p>webmon looks for this: needle-4711</p>");
        page.push_str(&"y".repeat(20_480 - page.len()));
        std::fs::write(dir.path().join("page.html"), page).unwrap();
        write_certificates(&dir);
        let (http, https) = (free_port(), free_port());
        let listen = |port: u16, more: &str| -> String {
            let addresses = 1..=ADDRESSES;
            addresses.map(|n| format!("listen 127.0.0.{n}:{port} {more} backlog=4096; ")).collect()
        };
        // One process, so that none outlives the bench however it ends. No resumption: each
        // connection is a full handshake, for wrk too.
        let conf = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
             worker_rlimit_nofile 16384; events {{ worker_connections 8192; }}
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
             server {{ {} root {root}; }}
             server {{ {} root {root};
             ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
             ssl_session_cache off; ssl_session_tickets off; }} }}",
            listen(http, ""),
            listen(https, "ssl"),
        );
        std::fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        if rustix::process::geteuid().is_root() {
            // The worker runs as another user and must be able to enter.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), mode).unwrap();
        }
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf")).arg("-p").arg(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let daemon = Daemon::spawn("nginx", command);
        for port in [http, https] {
            support::eventually("nginx listens", || {
                let stream = std::net::TcpStream::connect(("127.0.0.1", port));
                stream.map(drop).map_err(|error| format!("{error}: {:?}", daemon.log()))
            });
        }
        Self { _daemon: daemon, dir, http, https }
    }

    /// The authority behind its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    fn port(&self, scheme: &str) -> u16 {
        if scheme == "https" { self.https } else { self.http }
    }

    /// A site's URL as an SQL expression of its number `n`: dealt to all addresses.
    pub(crate) fn url_of_n(&self, scheme: &str) -> String {
        let port = self.port(scheme);
        format!("'{scheme}://127.0.0.' || 1 + n % {ADDRESSES} || ':{port}/page.html?' || n")
    }

    /// CPU µs and number per second of wrk's requests, each with a connection of its own. wrk
    /// looks neither at the page nor at the certificate.
    pub(crate) fn wrk(&self, scheme: &str) -> (f64, f64) {
        say(&format!("wrk, {scheme}"));
        let before = children_cpu_us();
        let url = format!("{scheme}://127.0.0.1:{}/page.html", self.port(scheme));
        let output = Command::new("wrk")
            .args(["-t1", "-c8", "-d5s", "-H", "Connection: close", &url])
            .output()
            .expect("wrk is installed");
        let used = children_cpu_us() - before;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|l| l.contains(" requests in ")).expect("wrk's summary");
        let requests: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(requests > 0.0, "{text}");
        (used / requests, requests / 5.0)
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An authority, and a certificate with an ECDSA key on P-256 (rcgen's default) for all addresses.
fn write_certificates(dir: &tempfile::TempDir) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority for measuring");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = (1..=ADDRESSES).map(|n| format!("127.0.0.{n}")).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("authority.pem", issuer.pem());
    write("cert.pem", certificate.pem());
    write("key.pem", key.serialize_pem());
}

//! What may be reached: the guard and the resolver, for checks, and for who wants to know before
//! there is a check.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::guard::Guard;
use super::resolver::Resolver;
use super::{Lookup, ProbeOptions, Prober};
use crate::runtime::now;

/// Most resolver threads: each hung one is a stack and a socket.
const RESOLVER_THREADS_MAX: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) guard: Arc<Guard>,
    pub(super) resolver: Arc<Resolver>,
}

impl Reach {
    pub(super) fn new(options: &ProbeOptions, lookup: &Lookup) -> io::Result<Self> {
        let threads = options.resolver_threads.clamp(1, RESOLVER_THREADS_MAX);
        let resolver = Resolver::with_threads(threads, lookup, options.dns_cache)?;
        let guard = Guard {
            allow_private: options.allow_private_addresses,
            allowed: options.allowed_addresses.clone(),
            denied: options.denied_addresses.clone(),
            own_listeners: options.own_listeners.clone(),
        };
        Ok(Self { guard: Arc::new(guard), resolver: Arc::new(resolver) })
    }
}

impl Prober {
    /// Why a site with `addresses: public` can't be at `host`, a name or an address without
    /// brackets, and `port`; absent where nothing is known against it. Names of this machine and
    /// names without a dot, which are of the own network, are looked up for at most `limit`;
    /// whatever other names lead to is judged at each check.
    #[must_use]
    pub fn refused_as_public(&self, host: &str, port: u16, limit: Duration) -> Option<String> {
        let judge = |ip: IpAddr| self.reach.guard.refusal(&SocketAddr::new(ip, port), true);
        if let Ok(ip) = host.parse() {
            return judge(ip);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let why = if name == "localhost" || name.ends_with(".localhost") {
            judge(Ipv4Addr::LOCALHOST.into())
        } else if name.contains('.') {
            None
        } else {
            let found = self.reach.resolver.addresses(&name, now().mono.saturating_add(limit));
            found.ok()?.iter().copied().find_map(judge)
        };
        why.map(|why| format!("{name}: {why}"))
    }
}

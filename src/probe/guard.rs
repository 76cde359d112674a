//! Which addresses may be dialled.
//!
//! The guard looks at the numeric address that is about to be dialled, never at a name or at the
//! text of a URL: names can resolve to anything, and one address has many spellings. An IPv4
//! address inside an IPv6 one is judged as the IPv4 address it leads to.
//!
//! Invariants, first rule first:
//! - A metadata address is refused, whatever the configuration says.
//! - What is denied is refused, also where it is allowed; what is allowed passes, also where
//!   special addresses don't.
//! - Webmon's own listeners are like special addresses: whoever may not look into private networks
//!   may not read its metrics over a public address either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(s: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]))
}

/// Services that hand credentials to whoever asks from inside a cloud machine. They are refused
/// always, also where private addresses are allowed. From the providers' documentation.
const METADATA: [IpAddr; 16] = [
    // AWS, Azure, Google, DigitalOcean, Oracle, OpenStack and others.
    v4(169, 254, 169, 254),
    // AWS: credentials of ECS tasks and EKS pods.
    v4(169, 254, 170, 2),
    v4(169, 254, 170, 23),
    // Azure's wire server.
    v4(168, 63, 129, 16),
    // Alibaba, Tencent, Scaleway, Oracle's first generation.
    v4(100, 100, 100, 200),
    v4(169, 254, 0, 23),
    v4(169, 254, 42, 42),
    v4(192, 0, 0, 192),
    // AWS over IPv6: metadata, and EKS pods.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]),
    // Google, Oracle, OpenStack, Scaleway, Linode, Alibaba over IPv6.
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]),
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]),
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]),
    v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200]),
];

/// What decides about an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// Whether loopback, private and other special addresses may be dialled.
    pub(super) allow_private: bool,
    /// Networks that may be dialled even so.
    pub(super) allowed: Vec<IpNet>,
    /// Networks that may not.
    pub(super) denied: Vec<IpNet>,
    /// Where webmon itself listens; the unspecified address is every address of this machine.
    pub(super) own_listeners: Vec<SocketAddr>,
}

impl Guard {
    /// Why `address` may not be dialled, such as "127.0.0.1 is a loopback address"; `None` when
    /// it may. `public_only`: as where special addresses are not allowed.
    pub(super) fn refusal(&self, address: &SocketAddr, public_only: bool) -> Option<String> {
        let ip = address.ip();
        let canonical = canonical(ip);
        let is_in = |networks: &[IpNet], ip| networks.iter().any(|net| net.contains(&ip));
        if is_metadata(ip, canonical) {
            return Some(format!("{ip} is a cloud metadata address"));
        }
        // Either spelling denies, but only the address it leads to allows.
        if is_in(&self.denied, canonical) || is_in(&self.denied, ip) {
            return Some(format!("{ip} is denied by the configuration"));
        }
        if (self.allow_private && !public_only) || is_in(&self.allowed, canonical) {
            return None;
        }
        if self.own_listeners.iter().any(|own| reaches(canonical, address.port(), own)) {
            return Some(format!("{address} is webmon's own listener"));
        }
        let why = match canonical {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        };
        why.map(|why| format!("{ip} is {why}"))
    }
}

fn is_metadata(address: IpAddr, canonical: IpAddr) -> bool {
    // A local NAT64 prefix may be longer than the 48 bits that are set aside, and may translate
    // to anything; most often it is 96 bits long.
    let behind_nat64 = match address {
        IpAddr::V6(v6) if matches!(v6.segments(), [0x64, 0xff9b, 1, ..]) => Some(v4_at(v6, 12)),
        _ => None,
    };
    METADATA.contains(&canonical) || behind_nat64.is_some_and(|v4| METADATA.contains(&v4))
}

/// Whether a connection to `address` and `port` would arrive at the listener `own`.
fn reaches(address: IpAddr, port: u16, own: &SocketAddr) -> bool {
    if port != own.port() {
        return false;
    }
    let listens = canonical(own.ip());
    if address.is_unspecified() {
        // Linux takes it for this machine.
        return listens.is_unspecified() || listens.is_loopback();
    }
    if listens.is_unspecified() {
        // One socket may serve both families. Only addresses of this machine can be bound.
        return address.is_loopback() || UdpSocket::bind((address, 0)).is_ok();
    }
    address == listens
}

/// The address that `address` leads to: IPv4 where an IPv6 one carries it.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        // IPv4-mapped, RFC 4291; and translated, RFC 2765.
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => v4_at(v6, 12),
        // IPv4-compatible, deprecated by RFC 4291; :: and ::1 are no such addresses.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => v4_at(v6, 12),
        // NAT64's well-known prefix, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => v4_at(v6, 12),
        // 6to4, RFC 3056.
        [0x2002, ..] => v4_at(v6, 2),
        _ => address,
    }
}

/// The IPv4 address in the bytes `at..` of `address`.
fn v4_at(address: Ipv6Addr, at: usize) -> IpAddr {
    let octets = address.octets();
    v4(octets[at], octets[at + 1], octets[at + 2], octets[at + 3])
}

/// The IPv4 entries of IANA's special-purpose registry that are not globally reachable.
fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_broadcast() => "the broadcast address",
        (0, ..) => "an address of this network",
        (127, ..) => "a loopback address",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (169, 254, _) => "a link-local address",
        (100, 64..=127, _) => "a carrier-grade NAT address",
        (192, 0, 0) => "a protocol assignment address",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "a documentation address",
        (192, 88, 99) => "a 6to4 relay address",
        (198, 18..=19, _) => "a benchmark address",
        (224..=239, ..) => "a multicast address",
        (240.., ..) => "a reserved address",
        _ => return None,
    })
}

/// The IPv6 entries of IANA's special-purpose registry that are not globally reachable.
fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    Some(match segments {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        [0xfc00..=0xfdff, ..] => "a unique local address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "a documentation address",
        [0x2001, 2, 0, ..] => "a benchmark address",
        // Teredo hides an IPv4 address; the rest of 2001::/23 is protocol assignments.
        [0x2001, 0..=0x1ff, ..] => "a protocol assignment address",
        [0x64, 0xff9b, 1, ..] => "a local NAT64 address",
        [0x5f00, ..] => "a segment routing address",
        // Only 2000::/3 is given out as global unicast.
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(address: &str, allow_private: bool) -> Option<String> {
        let guard = Guard { allow_private, ..Guard::default() };
        verdict_of(&guard, address, 80)
    }

    fn verdict_of(guard: &Guard, address: &str, port: u16) -> Option<String> {
        let address: IpAddr = address.parse().unwrap();
        let why = guard.refusal(&SocketAddr::new(address, port), false)?;
        let (shown, why) = why.split_once(" is ").unwrap();
        assert!(shown == address.to_string() || shown.parse::<SocketAddr>().is_ok(), "{shown}");
        Some(why.to_owned())
    }

    #[test]
    fn metadata_is_refused_in_every_spelling() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "64:ff9b:1::a9fe:a9fe",
            "::ffff:0:169.254.169.254",
            "169.254.42.42",
            "fd00:42::42",
            "169.254.0.23",
            "192.0.0.192",
            "fe80::a9fe:a9fe",
            "fd00:c1::a9fe:a9fe",
        ] {
            for allow_private in [true, false] {
                let why = verdict(address, allow_private);
                assert_eq!(why.as_deref(), Some("a cloud metadata address"), "{address}");
            }
        }
    }

    #[test]
    fn private_addresses_are_refused_unless_allowed() {
        for (address, why) in [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("2002:c0a8:101::1", "private"),
            ("169.254.0.1", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("100.64.0.1", "carrier-grade"),
            ("100.127.255.255", "carrier-grade"),
            ("fc00::1", "unique local"),
            ("fdff::1", "unique local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("ff02::1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("0.1.2.3", "this network"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("2001:db8::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("240.0.0.1", "reserved"),
            ("1000::1", "reserved"),
            ("4000::1", "reserved"),
            ("198.18.0.1", "benchmark"),
            ("198.19.255.255", "benchmark"),
            ("2001:2::1", "benchmark"),
            ("255.255.255.255", "broadcast"),
            ("192.0.0.8", "protocol assignment"),
            ("2001::1", "protocol assignment"),
            ("192.88.99.1", "6to4 relay"),
            ("64:ff9b:1::1", "local NAT64"),
        ] {
            let refused = verdict(address, false).unwrap_or_else(|| panic!("{address} passes"));
            assert!(refused.contains(why), "{address}: {refused}, not {why}");
            assert_eq!(verdict(address, true), None, "{address}");
        }
    }

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn lists_decide_before_the_kind_of_address() {
        let guard = |allow_private| Guard {
            allow_private,
            allowed: networks(&["10.1.0.0/16", "fd00::/8", "169.254.0.0/16", "64:ff9b::/96"]),
            denied: networks(&["10.1.2.0/24", "8.8.0.0/16", "2001:db8::/32", "64:ff9b::/112"]),
            own_listeners: Vec::new(),
        };
        const DENIED: Option<&str> = Some("denied by the configuration");
        for (address, when_allowed, when_not) in [
            ("10.1.1.1", None, None),
            ("::ffff:10.1.1.1", None, None),
            ("10.2.0.1", None, Some("a private address")),
            ("10.1.2.3", DENIED, DENIED),
            ("::ffff:10.1.2.3", DENIED, DENIED),
            ("8.8.8.8", DENIED, DENIED),
            ("2002:808:808::1", DENIED, DENIED),
            ("2001:db8::1", DENIED, DENIED),
            ("fd00::1", None, None),
            // As it is written, not only where it leads.
            ("64:ff9b::0.0.1.1", DENIED, DENIED),
            // Allowed is where it leads, not how it is written.
            ("64:ff9b::127.0.0.1", None, Some("a loopback address")),
            ("169.254.1.1", None, None),
            ("169.254.169.254", Some("a cloud metadata address"), Some("a cloud metadata address")),
            ("fd00:ec2::254", Some("a cloud metadata address"), Some("a cloud metadata address")),
            ("1.1.1.1", None, None),
        ] {
            for (allow_private, expect) in [(true, when_allowed), (false, when_not)] {
                let verdict = verdict_of(&guard(allow_private), address, 80);
                assert_eq!(verdict.as_deref(), expect, "{address}, {allow_private}");
            }
        }
    }

    #[test]
    fn own_listeners_are_refused_wherever_they_are_reached() {
        const OWN: Option<&str> = Some("webmon's own listener");
        for (listener, address, port, expect) in [
            ("127.0.0.1:9464", "127.0.0.1", 9464, OWN),
            ("127.0.0.1:9464", "127.0.0.1", 9465, None),
            ("127.0.0.1:9464", "127.0.0.2", 9464, None),
            ("127.0.0.1:9464", "::ffff:127.0.0.1", 9464, OWN),
            ("127.0.0.1:9464", "0.0.0.0", 9464, OWN),
            ("10.0.0.1:9464", "0.0.0.0", 9464, None),
            ("10.0.0.1:9464", "10.0.0.1", 9464, OWN),
            ("[::ffff:10.0.0.1]:9464", "10.0.0.1", 9464, OWN),
            ("0.0.0.0:9464", "127.0.0.1", 9464, OWN),
            ("0.0.0.0:9464", "127.9.9.9", 9464, OWN),
            ("0.0.0.0:9464", "0.0.0.0", 9464, OWN),
            ("[::]:9464", "127.0.0.1", 9464, OWN),
            ("[::]:9464", "::1", 9464, OWN),
            ("[::]:9464", "::", 9464, OWN),
            ("0.0.0.0:9464", "127.0.0.1", 80, None),
            // No address of this machine, by its nature.
            ("0.0.0.0:9464", "192.0.2.1", 9464, None),
            ("[::]:9464", "2001:db8::1", 9464, None),
        ] {
            let own_listeners = vec![listener.parse().unwrap()];
            let guard = Guard { own_listeners: own_listeners.clone(), ..Guard::default() };
            let verdict = verdict_of(&guard, address, port).filter(|why| Some(why.as_str()) == OWN);
            assert_eq!(verdict.as_deref(), expect, "{listener}: {address} {port}");
            let open = Guard { allow_private: true, own_listeners, ..Guard::default() };
            assert_eq!(verdict_of(&open, address, port), None, "{listener}: {address} {port}");
        }
    }

    #[test]
    fn the_machines_own_addresses_belong_to_an_unspecified_listener() {
        // The source address of a way out is one of the machine's; without a way out there is
        // only loopback to try.
        let way_out = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        let own = match way_out.connect(("192.0.2.1", 9)).and_then(|()| way_out.local_addr()) {
            Ok(own) => own.ip(),
            Err(_) => v4(127, 0, 0, 1),
        };
        assert!(reaches(own, 9464, &"0.0.0.0:9464".parse().unwrap()), "{own}");
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(verdict(address, false), None, "{address}");
        }
    }
}

//! Which addresses may be dialled. Pure: numbers in, a verdict out.
//!
//! The guard looks at the numeric address that is about to be dialled, never at a name or at the
//! text of a URL: names can resolve to anything, and one address has many spellings. An IPv4
//! address inside an IPv6 one is judged as the IPv4 address it leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Services that hand credentials to whoever asks from inside a cloud machine. They are refused
/// always, also where private addresses are allowed.
const METADATA: [IpAddr; 8] = [
    // AWS, Azure, Google, DigitalOcean, Oracle and others.
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // AWS: credentials of ECS tasks and EKS pods.
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    // Azure's wire server.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // AWS over IPv6: metadata, and EKS pods.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why `address` may not be dialled, as in "… is a loopback address"; `None` when it may.
pub(super) fn refusal(address: IpAddr, allow_private: bool) -> Option<&'static str> {
    let canonical = canonical(address);
    if METADATA.contains(&canonical) {
        return Some("a cloud metadata address");
    }
    if allow_private {
        return None;
    }
    match canonical {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

/// The address that `address` leads to: IPv4 where an IPv6 one carries it.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let segments = v6.segments();
    let octets = v6.octets();
    let v4_at = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]))
    };
    match segments {
        // IPv4-mapped, RFC 4291.
        [0, 0, 0, 0, 0, 0xffff, _, _] => v4_at(12),
        // IPv4-compatible, deprecated by RFC 4291; :: and ::1 are no such addresses.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => v4_at(12),
        // NAT64's well-known prefix, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => v4_at(12),
        // 6to4, RFC 3056.
        [0x2002, ..] => v4_at(2),
        _ => address,
    }
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

    fn verdict(address: &str, allow_private: bool) -> Option<&'static str> {
        refusal(address.parse().unwrap(), allow_private)
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
        ] {
            assert_eq!(verdict(address, true), Some("a cloud metadata address"), "{address}");
            assert_eq!(verdict(address, false), Some("a cloud metadata address"), "{address}");
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

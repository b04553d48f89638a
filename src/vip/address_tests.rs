//! What is accepted as a VIP and what is not.

use super::*;
use proptest::prelude::*;

fn problem(text: &str) -> String {
    text.parse::<Address>()
        .map_or_else(|e| e.to_string(), |ok| panic!("{ok} was accepted"))
}

#[test]
fn a_host_address_with_its_prefix_is_accepted() {
    for good in [
        "10.0.0.9/24",
        "10.0.0.9/32",
        "10.0.0.0/31",
        "10.0.0.1/31",
        "192.168.255.254/16",
        "fd00::9/64",
        "2001:db8::1/128",
    ] {
        assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
    }
    assert_eq!("FD00:0:0::9/64".parse::<Address>().unwrap().to_string(), "fd00::9/64");
}

#[test]
fn what_is_malformed_is_quoted() {
    for bad in [
        "",
        "10.0.0.9",
        "10.0.0.9/",
        "/24",
        "10.0.0/24",
        "10.0.0.9/+24",
        "10.0.0.9/ 24",
        "10.0.0.9/24/24",
        "10.0.0.09/24",
        "10.0.0.9/0024",
        "10.0.0.9/255.255.255.0",
        "fd00::9%eth1/64",
        "[fd00::9]/64",
        "host/24",
        "10.0.0.9/-1",
        "１0.0.0.9/24",
    ] {
        let said = problem(bad);
        assert!(
            said.contains(&format!("\"{bad}\" is not an address with a prefix length")),
            "{bad}: {said}"
        );
    }
}

#[test]
fn a_prefix_that_does_not_fit_is_refused() {
    for (bad, most) in [
        ("10.0.0.9/0", 32),
        ("10.0.0.9/33", 32),
        ("10.0.0.9/999", 32),
        ("fd00::9/0", 128),
        ("fd00::9/129", 128),
    ] {
        assert!(
            problem(bad).contains(&format!("not between 1 and {most}")),
            "{bad}: {}",
            problem(bad)
        );
    }
}

#[test]
fn what_is_no_hosts_address_is_named() {
    for (bad, what) in [
        ("10.0.0.0/24", "the network's own address"),
        ("10.0.0.255/24", "the network's broadcast address"),
        ("10.0.255.255/16", "the network's broadcast address"),
        ("fd00::/64", "the network's own address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("0.0.0.0/32", "the unspecified address"),
        ("::/128", "the unspecified address"),
        ("127.0.0.2/8", "a loopback address"),
        ("::1/128", "a loopback address"),
        ("224.0.0.18/24", "a multicast address"),
        ("ff02::1/64", "a multicast address"),
        ("169.254.1.1/16", "a link-local address"),
        ("fe80::9/64", "a link-local address"),
        ("febf::9/64", "a link-local address"),
        ("0.1.2.3/24", "a reserved address"),
        ("241.0.0.1/24", "a reserved address"),
        ("::ffff:10.0.0.9/128", "an IPv4 address written as IPv6"),
    ] {
        assert!(problem(bad).contains(what), "{bad}: {}", problem(bad));
    }
}

#[test]
fn a_list_is_neither_empty_nor_endless_nor_says_a_thing_twice() {
    assert_eq!(Vip::parse::<&str>(&[]), Err(AddressProblem::None));
    assert!(matches!(
        Vip::parse(&["10.0.0.9/24", "10.0.0.9/32"]),
        Err(AddressProblem::Twice(_))
    ));
    let many: Vec<String> = (1..=17).map(|n| format!("10.0.0.{n}/24")).collect();
    assert_eq!(Vip::parse(&many), Err(AddressProblem::TooMany(17)));
    let vip: Vip = serde_json::from_str(r#"["10.0.0.9/24", "fd00::9/64"]"#).unwrap();
    assert_eq!(serde_json::to_string(&vip).unwrap(), r#"["10.0.0.9/24","fd00::9/64"]"#);
    assert_eq!(vip.to_string(), "10.0.0.9/24, fd00::9/64");
    assert!(vip.contains("fd00::9".parse().unwrap()) && !vip.contains("10.0.0.8".parse().unwrap()));
    let said = serde_json::from_str::<Vip>(r#"["10.0.0.9"]"#).unwrap_err().to_string();
    assert!(said.contains("10.0.0.9"), "{said}");
}

#[test]
fn networks_are_told_apart() {
    let inside = |a: &str, b: &str, prefix| in_network(a.parse().unwrap(), b.parse().unwrap(), prefix);
    assert!(inside("10.0.0.9", "10.0.0.5", 24) && !inside("10.0.1.9", "10.0.0.5", 24));
    assert!(inside("10.0.0.9", "192.168.0.1", 0) && !inside("10.0.0.9", "10.0.0.8", 32));
    assert!(inside("fd00::9", "fd00::5", 64) && !inside("fd00:1::9", "fd00::5", 64) && inside("fd00::9", "fe00::", 0));
    assert!(!inside("10.0.0.9", "::10.0.0.9", 0));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn any_address_is_read_back(ip in any::<IpAddr>(), prefix in any::<u8>()) {
        if let Ok(address) = Address::new(ip, prefix) {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            prop_assert!(in_network(ip, ip, prefix));
        }
    }
}

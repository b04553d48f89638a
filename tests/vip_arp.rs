//! The plane `arp` between hosts in namespaces on one bridge: A is this process, B a thread in its own namespace, the gateway
//! keeps a neighbour cache and never asks again by itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod vip_net;
mod vip_support;

use std::time::Duration;
use trove_guestagent::vip::{
    AddressPlane, ArpPlane, DataNic, HoldOptions, Probe, ProbeOptions, Vip, VipError, VipErrorKind, VipEvent,
};
use vip_net::{Net, VIP4, VIP6, block, event, host, in_time, no_event};
use vip_support::{alone, alone_by, sh};

use datastore_api::Change;

fn vip() -> Vip {
    Vip::parse(&[format!("{VIP4}/24"), format!("{VIP6}/64")]).unwrap()
}

fn open() -> ArpPlane {
    ArpPlane::open(DataNic::by_name("data0").unwrap(), vip()).unwrap()
}

const NOW: Duration = Duration::ZERO;

#[test]
fn the_neighbours_follow_when_the_address_moves() {
    if !alone("the_neighbours_follow_when_the_address_moves") {
        return;
    }
    let net = Net::new(true);
    block(async {
        let (a, b) = (open(), host(&net.b, open));
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Done);
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Unchanged);
        assert!(a.holds().await.unwrap() && a.state().borrow().held);
        net.prime();
        assert_eq!(net.neighbours(), [net.mac_a(), net.mac_a()]);
        // Planned: the new one first, the old one goes 50 ms later and calls nobody a rival meanwhile.
        let mut heard = a.events();
        let leaving = a.release(Duration::from_millis(50));
        let mac = net.mac_a();
        let coming = b.run(async move |b| {
            let options = HoldOptions {
                expected: vec![mac],
                ..HoldOptions::default()
            };
            b.hold(&options).await.unwrap()
        });
        let (left, came) = tokio::join!(leaving, coming);
        assert_eq!((left.unwrap(), came), (Change::Done, Change::Done));
        in_time("both neighbours follow", || net.neighbours() == [net.mac_b(), net.mac_b()]).await;
        assert_eq!(event(&mut heard).await, VipEvent::Released);
        no_event(&mut heard);
        assert!(!a.holds().await.unwrap());
        assert_eq!(a.release(NOW).await.unwrap(), Change::Unchanged);
        net.ask();
        // And back, to a host that is not there any more.
        b.run(async |b| b.release(NOW).await.unwrap()).await;
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Done);
        in_time("both neighbours come back", || net.neighbours() == [net.mac_a(), net.mac_a()]).await;
        net.ask();
    });
}

#[test]
fn an_address_in_use_is_found_and_not_taken() {
    if !alone("an_address_in_use_is_found_and_not_taken") {
        return;
    }
    let net = Net::new(true);
    block(async {
        let a = open();
        let quick = ProbeOptions {
            limit: Duration::from_millis(500),
            ..ProbeOptions::default()
        };
        assert_eq!(a.probe(&quick).await.unwrap(), Probe::Free);
        for address in vip().addresses() {
            net.b.sh(&format!("ip addr add {address} dev data0 nodad"));
            let by = net.mac_b();
            assert_eq!(
                a.probe(&ProbeOptions::default()).await.unwrap(),
                Probe::Taken { address: *address, by }
            );
            let ignoring = ProbeOptions {
                ignore: vec![by],
                ..quick.clone()
            };
            assert_eq!(a.probe(&ignoring).await.unwrap(), Probe::Free);
            let options = HoldOptions {
                probe: Some(quick.clone()),
                ..HoldOptions::default()
            };
            let error = a.hold(&options).await.unwrap_err();
            assert_eq!(error.kind(), VipErrorKind::Taken);
            assert!(error.to_string().contains(&by.to_string()), "{error}");
            assert!(!a.holds().await.unwrap());
            net.b.sh(&format!("ip addr del {address} dev data0"));
        }
        let options = HoldOptions {
            probe: Some(quick),
            ..HoldOptions::default()
        };
        assert_eq!(a.hold(&options).await.unwrap(), Change::Done);
    });
}

#[test]
fn a_nic_without_an_address_can_probe_hold_and_announce() {
    if !alone("a_nic_without_an_address_can_probe_hold_and_announce") {
        return;
    }
    let net = Net::new(false);
    block(async {
        let a = open();
        let nic = DataNic::by_name("data0").unwrap();
        assert!(nic.addresses().iter().all(|address| address.ip.is_ipv6()), "only link-local");
        nic.check(&vip(), None).unwrap();
        net.b.sh(&format!("ip addr add {VIP4}/24 dev data0"));
        net.b.sh(&format!("ip addr add {VIP6}/64 dev data0 nodad"));
        net.prime();
        assert!(matches!(a.probe(&ProbeOptions::default()).await.unwrap(), Probe::Taken { by, .. } if by == net.mac_b()));
        net.b.sh(&format!("ip addr del {VIP4}/24 dev data0"));
        net.b.sh(&format!("ip addr del {VIP6}/64 dev data0"));
        assert_eq!(a.probe(&ProbeOptions::default()).await.unwrap(), Probe::Free);
        assert_eq!(net.neighbours(), [net.mac_b(), net.mac_b()]);
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Done);
        in_time("both neighbours follow", || net.neighbours() == [net.mac_a(), net.mac_a()]).await;
        net.ask();
        // An address that comes later in the same network becomes secondary to ours, and does not go with it.
        sh("ip addr add 10.9.0.1/24 dev data0");
        assert_eq!(a.release(NOW).await.unwrap(), Change::Done);
        let left = sh("ip -4 -o addr show dev data0");
        assert!(left.contains("10.9.0.1/24") && !left.contains(VIP4), "{left}");
    });
}

#[test]
fn what_must_not_be_a_vip_is_refused_and_nothing_changes() {
    if !alone("what_must_not_be_a_vip_is_refused_and_nothing_changes") {
        return;
    }
    let _net = Net::new(true);
    sh("ip link add mgmt0 type veth peer name far0");
    sh("ip addr add 10.8.0.1/24 dev mgmt0");
    sh("ip addr add fd08::1/64 dev mgmt0 nodad");
    sh("ip addr add 192.0.2.1/24 dev data0");
    let before = sh("ip -o addr show");
    let nic = DataNic::by_name("data0").unwrap();
    assert_eq!(DataNic::by_mac(nic.mac()).unwrap().name(), "data0");
    assert!(
        nic.is_up()
            && nic
                .addresses()
                .iter()
                .any(|a| a.ip.to_string() == "10.9.0.1" && a.prefix == 24 && !a.ours)
    );
    let refused = |address: &str, management: Option<&str>| {
        let error = nic.check(&Vip::parse(&[address]).unwrap(), management).unwrap_err();
        assert_eq!(error.kind(), VipErrorKind::Invalid);
        error.to_string()
    };
    for (address, said) in [
        (
            "10.7.0.9/24",
            "10.7.0.9/24 is in no network of the data interface data0 (10.9.0.1/24, 192.0.2.1/24)",
        ),
        ("fd07::9/64", "is in no network of the data interface data0 (fd09::1/64)"),
        (
            "10.9.0.9/16",
            "must have the prefix length of its network 10.9.0.1/24, or that of a single host",
        ),
        ("10.9.0.255/32", "is the network's broadcast address of 10.9.0.1/24"),
        ("10.9.0.0/32", "is the network's own address of 10.9.0.1/24"),
        (
            "10.9.0.1/24",
            "10.9.0.1 is already configured on the interface data0, not by this agent",
        ),
        ("10.8.0.1/32", "10.8.0.1 is already configured on the interface mgmt0"),
        ("fd09::1/64", "is already configured on the interface data0"),
    ] {
        assert!(refused(address, None).contains(said), "{address}: {}", refused(address, None));
    }
    assert!(refused("10.9.0.9/24", Some("data0")).contains("data0 is the management interface"));
    assert!(refused("10.9.0.9/24", Some("none0")).contains("no network interface none0"));
    for good in ["10.9.0.9/24", "10.9.0.9/32", "fd09::9/64", "192.0.2.9/24"] {
        nic.check(&Vip::parse(&[good]).unwrap(), Some("mgmt0")).unwrap();
    }
    // A data NIC with no address of its own takes any network, but not the management one.
    sh("ip addr flush dev data0");
    let bare = DataNic::by_name("data0").unwrap();
    bare.check(&vip(), Some("mgmt0")).unwrap();
    for address in ["10.8.0.9/24", "fd08::9/64"] {
        let error = bare.check(&Vip::parse(&[address]).unwrap(), Some("mgmt0")).unwrap_err();
        assert!(error.to_string().contains("of the management interface mgmt0"), "{error}");
    }
    assert!(matches!(DataNic::by_name("lo"), Err(VipError::NotEthernet(_))));
    assert!(matches!(DataNic::by_name("none0"), Err(VipError::NoSuchNic(_))));
    assert!(DataNic::by_mac("02:00:00:00:00:77".parse().unwrap()).is_err());
    sh("ip addr add 10.9.0.1/24 dev data0");
    sh("ip addr add 192.0.2.1/24 dev data0");
    sh("ip addr add fd09::1/64 dev data0 nodad");
    assert_eq!(
        before.lines().count(),
        sh("ip -o addr show").lines().count() + 1,
        "one link-local address is gone with the flush"
    );
}

#[test]
fn a_release_lingers_and_can_be_taken_back() {
    if !alone("a_release_lingers_and_can_be_taken_back") {
        return;
    }
    let _net = Net::new(true);
    block(async {
        let a = std::sync::Arc::new(open());
        a.hold(&HoldOptions::default()).await.unwrap();
        let leaving = {
            let a = a.clone();
            tokio::spawn(async move { a.release(Duration::from_secs(20)).await })
        };
        let mut state = a.state();
        state.wait_for(|state| !state.wanted).await.unwrap();
        assert!(a.holds().await.unwrap(), "it answers still");
        assert!(!state.borrow().held);
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Unchanged);
        assert!(leaving.await.unwrap().unwrap_err().to_string().contains("held again"));
        // A second release that waits less decides; both learn of it. Nobody needs to wait.
        let one = {
            let a = a.clone();
            tokio::spawn(async move { a.release(Duration::from_secs(20)).await })
        };
        state.wait_for(|state| !state.wanted).await.unwrap();
        drop(tokio::time::timeout(Duration::from_millis(1), a.release(Duration::from_millis(50))).await);
        assert_eq!(one.await.unwrap().unwrap(), Change::Done);
        assert!(!a.holds().await.unwrap());
    });
}

#[test]
fn without_the_right_to_send_frames_the_capability_is_named() {
    let way = [
        "unshare",
        "--net",
        "setpriv",
        "--bounding-set",
        "-net_raw",
        "--inh-caps",
        "-net_raw",
    ];
    if !alone_by("without_the_right_to_send_frames_the_capability_is_named", &way) {
        return;
    }
    sh("ip link add data0 type veth peer name far0");
    block(async {
        let nic = DataNic::by_name("data0").unwrap();
        let error = ArpPlane::open(nic, vip()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not open a packet socket: the capability CAP_NET_RAW is missing"
        );
        assert_eq!(error.kind(), VipErrorKind::NotPermitted);
    });
}

#[test]
fn without_the_right_to_change_addresses_the_capability_is_named() {
    let make = "ip link add data0 up type veth peer name far0 && ip link set far0 up && \
        exec setpriv --bounding-set -net_admin --inh-caps -net_admin \"$0\" \"$@\"";
    let way = ["unshare", "--net", "sh", "-c", make];
    if !alone_by("without_the_right_to_change_addresses_the_capability_is_named", &way) {
        return;
    }
    block(async {
        let a = open();
        let error = a.hold(&HoldOptions::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not add the service address: the capability CAP_NET_ADMIN is missing"
        );
        assert_eq!(error.kind(), VipErrorKind::NotPermitted);
    });
}

//! The plane `arp` when others interfere: they remove the address, claim it, stop or kill the process, pull the cable.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod vip_net;
mod vip_support;

use std::time::Duration;
use trove_guestagent::vip::{AddressPlane, ArpPlane, DataNic, HoldOptions, Vip, VipErrorKind, VipEvent, cleanup};
use vip_net::{Net, VIP4, VIP6, block, event, host, in_time, no_event};
use vip_support::{Ended, alone, program, sh, until};

use datastore_api::Change;

fn vip() -> Vip {
    Vip::parse(&[format!("{VIP4}/24"), format!("{VIP6}/64")]).unwrap()
}

fn open() -> ArpPlane {
    ArpPlane::open(DataNic::by_name("data0").unwrap(), vip()).unwrap()
}

const HOLDER: &str = "TROVE_GUESTAGENT_TEST_HOLDER";

/// What the test does in its other process.
fn hold_for_ever() {
    block(async {
        let plane = open();
        plane.hold(&HoldOptions::default()).await.unwrap();
        std::future::pending::<()>().await;
    });
}

/// This test in another process that holds the address.
fn holder(test: &str) -> Ended {
    let mut command = program(std::env::current_exe().unwrap().to_str().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(HOLDER, "1");
    let child = Ended(command.spawn().unwrap());
    until("the other process holds the address", both_there);
    child
}

fn both_there() -> bool {
    let there = sh("ip -o addr show dev data0");
    [VIP4, VIP6].iter().all(|ip| there.contains(ip))
}

const NOW: Duration = Duration::ZERO;

#[test]
fn an_address_that_somebody_removed_is_put_back() {
    if !alone("an_address_that_somebody_removed_is_put_back") {
        return;
    }
    let net = Net::new(true);
    block(async {
        let a = open();
        a.hold(&HoldOptions::default()).await.unwrap();
        let mut heard = a.events();
        net.prime();
        for _ in 0..3 {
            sh("ip addr flush dev data0");
            let mut back = [event(&mut heard).await, event(&mut heard).await];
            back.sort_by_key(|event| format!("{event:?}"));
            assert_eq!(
                back,
                vip().addresses().iter().map(|a| VipEvent::PutBack(*a)).collect::<Vec<_>>()[..]
            );
            assert!(a.holds().await.unwrap() && a.state().borrow().held);
        }
        net.ask();
        // What we removed ourselves is not.
        assert_eq!(a.release(NOW).await.unwrap(), Change::Done);
        assert_eq!(event(&mut heard).await, VipEvent::Released);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!a.holds().await.unwrap());
        no_event(&mut heard);
    });
}

#[test]
fn a_rival_is_reported_and_answered() {
    if !alone("a_rival_is_reported_and_answered") {
        return;
    }
    let net = Net::new(true);
    block(async {
        let a = open();
        a.hold(&HoldOptions::default()).await.unwrap();
        net.prime();
        let mut heard = a.events();
        let b = host(&net.b, open);
        b.run(async |b| b.hold(&HoldOptions::default()).await.unwrap()).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match event(&mut heard).await {
                VipEvent::Rival { address, mac } => {
                    assert_eq!(mac, net.mac_b());
                    if !seen.contains(&address) {
                        seen.push(address);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let state = a.state().borrow().clone();
        assert!(state.held && state.rivals.iter().all(|rival| rival.mac == net.mac_b() && rival.heard > 0));
        // The rival leaves without a word; ours is told again by itself.
        b.run(async |b| b.release(NOW).await.unwrap()).await;
        in_time("the neighbours come back", || net.neighbours() == [net.mac_a(), net.mac_a()]).await;
    });
}

#[test]
fn what_a_killed_agent_left_is_found_by_its_mark() {
    const TEST: &str = "what_a_killed_agent_left_is_found_by_its_mark";
    if std::env::var_os(HOLDER).is_some() {
        hold_for_ever();
    }
    if !alone(TEST) {
        return;
    }
    let _net = Net::new(true);
    let killed = || {
        drop(holder(TEST));
        assert!(both_there(), "a killed agent is no outage");
    };
    killed();
    sh("ip addr add 10.9.0.77/24 dev data0");
    let keep = vip().addresses()[..1].to_vec();
    assert_eq!(cleanup(&keep).unwrap(), vip().addresses()[1..]);
    assert_eq!(cleanup(&[]).unwrap(), keep);
    assert_eq!(cleanup(&[]).unwrap(), []);
    let left = sh("ip -o addr show dev data0");
    assert!(
        ["10.9.0.1/", "10.9.0.77/", "fd09::1/"].iter().all(|kept| left.contains(kept)),
        "{left}"
    );
    // A new agent holds what the old one held, without taking it off; ours is not foreign to it.
    killed();
    DataNic::by_name("data0").unwrap().check(&vip(), None).unwrap();
    block(async {
        let a = open();
        assert!(!a.state().borrow().held && a.state().borrow().addresses.len() == 2);
        assert_eq!(a.hold(&HoldOptions::default()).await.unwrap(), Change::Unchanged);
        assert!(a.state().borrow().held);
        drop(a);
        let a = open();
        assert_eq!(a.release(NOW).await.unwrap(), Change::Done, "or takes it off");
        assert!(!a.holds().await.unwrap());
    });
}

#[test]
fn a_process_that_was_stopped_does_not_claim_what_another_took() {
    const TEST: &str = "a_process_that_was_stopped_does_not_claim_what_another_took";
    if std::env::var_os(HOLDER).is_some() {
        hold_for_ever();
    }
    if !alone(TEST) {
        return;
    }
    let net = Net::new(true);
    let child = holder(TEST);
    net.prime();
    sh(&format!("kill -STOP {}", child.0.id()));
    std::thread::sleep(Duration::from_millis(1500));
    block(async {
        let b = host(&net.b, open);
        b.run(async |b| b.hold(&HoldOptions::default()).await.unwrap()).await;
        in_time("the neighbours follow", || net.neighbours() == [net.mac_b(), net.mac_b()]).await;
        // Its sockets are full of the other's claims now.
        let mut claims = net.claims(3.0);
        sh(&format!("kill -CONT {}", child.0.id()));
        let said = claims.all();
        assert!(said.contains(&net.mac_b()), "the listener hears: {said:?}");
        assert!(!said.contains(&net.mac_a()), "the old holder is silent: {said:?}");
    });
    drop(child);
}

#[test]
fn a_link_that_goes_and_comes_is_seen() {
    if !alone("a_link_that_goes_and_comes_is_seen") {
        return;
    }
    let net = Net::new(true);
    block(async {
        let a = open();
        let mut heard = a.events();
        // The cable: the other end is down.
        net.gateway.sh("ip link set port_a down");
        assert_eq!(event(&mut heard).await, VipEvent::LinkDown);
        let error = a.hold(&HoldOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), VipErrorKind::Unavailable, "{error}");
        assert!(!a.holds().await.unwrap());
        net.gateway.sh("ip link set port_a up");
        assert_eq!(event(&mut heard).await, VipEvent::LinkUp);
        a.hold(&HoldOptions::default()).await.unwrap();
        assert_eq!(event(&mut heard).await, VipEvent::Held);
        net.prime();
        // The NIC: the kernel drops its IPv6 addresses.
        sh("ip link set data0 down");
        until_event(&mut heard, &VipEvent::LinkDown).await;
        assert!(!a.state().borrow().link);
        sh("ip link set data0 up");
        until_event(&mut heard, &VipEvent::LinkUp).await;
        in_time("it is whole again", || {
            a.state().borrow().held && a.state().borrow().reason.is_none()
        })
        .await;
        assert!(a.holds().await.unwrap());
        in_time("clients reach it", || net.reachable()).await;
        // Another NIC of the same name, as after a hot unplug.
        sh("ip link del data0");
        until_event(&mut heard, &VipEvent::LinkDown).await;
        net.plug(false);
        until_event(&mut heard, &VipEvent::LinkUp).await;
        in_time("it is on the new NIC", || a.state().borrow().held).await;
        in_time("clients reach it", || net.reachable()).await;
        assert_eq!(net.neighbours(), [net.mac_a(), net.mac_a()]);
        a.release(NOW).await.unwrap();
    });
}

async fn until_event(heard: &mut tokio::sync::broadcast::Receiver<VipEvent>, wanted: &VipEvent) {
    while event(heard).await != *wanted {}
}

#[test]
fn where_ipv6_is_off_nothing_is_half_held() {
    if !alone("where_ipv6_is_off_nothing_is_half_held") {
        return;
    }
    let _net = Net::new(true);
    std::fs::write("/proc/sys/net/ipv6/conf/data0/disable_ipv6", "1").unwrap();
    block(async {
        let a = open();
        let error = a.hold(&HoldOptions::default()).await.unwrap_err();
        assert!(
            error.to_string().contains("IPv6 is disabled on the interface data0"),
            "{error}"
        );
        assert!(!sh("ip -o addr show").contains(VIP4));
        assert!(!a.state().borrow().wanted);
    });
}

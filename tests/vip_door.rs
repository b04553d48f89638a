//! The door of the database port, in real network namespaces: what a client sees and what the server gets.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or that is skipped, says so"
)]

mod vip_support;

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};
use trove_guestagent::vip::door::{Door, DoorError, DoorSettings, DoorState};
use trove_guestagent::vip::{NetlinkError, sockets};
use vip_support::*;

const LEASE: Duration = Duration::from_millis(1500);

fn door(port: u16) -> Door {
    Door::new(DoorSettings {
        data_nic: "data0".into(),
        port,
        peers: vec![PEER4.parse().unwrap(), PEER6.parse().unwrap()],
    })
    .unwrap()
}

fn world() -> (World, Server, Door) {
    let world = World::new();
    let server = Server::on(Ipv6Addr::UNSPECIFIED.into());
    let door = door(server.port);
    (world, server, door)
}

fn is_leased(state: DoorState) -> bool {
    matches!(state, DoorState::Leased(left) if left <= LEASE)
}

#[test]
fn a_lease_that_nobody_renews_cuts_clients_off_in_both_directions() {
    if !alone("a_lease_that_nobody_renews_cuts_clients_off_in_both_directions") {
        return;
    }
    let (mut world, server, door) = world();
    let client = &mut world.client;
    assert!(is_leased(door.install(DoorState::Leased(LEASE)).unwrap()));
    for (name, to) in [("old4", GUEST4), ("old6", GUEST6), ("slow4", GUEST4), ("slow6", GUEST6)] {
        assert_eq!(client.connect(name, to, server.port), "ok");
        assert_eq!(client.echo(name, "before"), "got before");
    }
    assert_eq!(client.send("slow4", "wait 2500 slow4"), "ok");
    assert_eq!(client.send("slow6", "wait 2500 slow6"), "ok");
    assert!(is_leased(door.state().unwrap()));
    until("the kernel closes the door", || door.state().unwrap() == DoorState::Closed);

    for (name, to) in [("new4", GUEST4), ("new6", GUEST6)] {
        assert_eq!(client.connect(name, to, server.port), "ECONNREFUSED");
    }
    for name in ["old4", "old6"] {
        assert_eq!(client.echo(name, "too_late"), "ECONNRESET");
    }
    assert!(
        server.got("wait 2500 slow4") && server.got("wait 2500 slow6"),
        "both were under way"
    );
    assert_eq!(client.read("slow4", 2.0), "silence", "the answer was ready after the lease");
    assert_eq!(client.read("slow6", 0.1), "silence");
    assert!(!server.got("too_late"));

    // What the server still has to say is thrown away before clients come in again.
    // The two old sessions are still open on this side; the client knows already that they are gone.
    assert_eq!(sockets::destroy_clients(server.port, &[]).unwrap(), 4);
    door.set(DoorState::Open).unwrap();
    assert_eq!(client.read("slow4", 2.0), "ECONNRESET");
    assert_eq!(client.read("slow6", 2.0), "ECONNRESET");
    assert_eq!(client.connect("again", GUEST4, server.port), "ok");
    assert_eq!(client.echo("again", "later"), "got later");
}

#[test]
fn renewing_keeps_the_door_open_and_is_cheap() {
    if !alone("renewing_keeps_the_door_open_and_is_cheap") {
        return;
    }
    let (mut world, server, door) = world();
    door.install(DoorState::Leased(LEASE)).unwrap();
    assert_eq!(world.client.connect("a", GUEST4, server.port), "ok");
    let end = Instant::now() + LEASE * 2;
    while Instant::now() < end {
        door.renew(LEASE).unwrap();
        assert_eq!(world.client.echo("a", "still"), "got still");
        thread::sleep(LEASE / 15);
    }
    let mut took: Vec<Duration> = (0..500)
        .map(|_| {
            let start = Instant::now();
            door.renew(LEASE).unwrap();
            start.elapsed()
        })
        .collect();
    took.sort();
    println!("renewing: median {:?}, p99 {:?}", took[250], took[495]);
    assert!(took[250] < Duration::from_millis(100));

    until("the lease ends", || door.state().unwrap() == DoorState::Closed);
    assert!(matches!(door.renew(LEASE), Err(DoorError::Lapsed)));
    assert_eq!(door.state().unwrap(), DoorState::Closed, "a late renewal opens nothing");
    sh("nft flush ruleset");
    assert!(matches!(door.renew(LEASE), Err(DoorError::Missing)));
    assert!(matches!(door.set(DoorState::Open), Err(DoorError::Missing)));
    assert!(matches!(door.state(), Err(DoorError::Missing)));
}

#[test]
fn a_closed_door_resets_clients_and_lets_peers_pass() {
    if !alone("a_closed_door_resets_clients_and_lets_peers_pass") {
        return;
    }
    let (mut world, server, door) = world();
    let (port, client) = (server.port, &mut world.client);
    assert_eq!(door.install(DoorState::Open).unwrap(), DoorState::Open);
    assert_eq!(client.connect("old", GUEST4, port), "ok");
    assert_eq!(client.connect_from("peer4", GUEST4, port, PEER4), "ok");
    assert_eq!(client.connect_from("peer6", GUEST6, port, PEER6), "ok");
    assert_eq!(
        client.connect("m", GUEST_MANAGEMENT, port),
        "ECONNREFUSED",
        "the guard, door open"
    );
    door.set(DoorState::Closed).unwrap();
    assert_eq!(client.connect("new4", GUEST4, port), "ECONNREFUSED");
    assert_eq!(client.connect("new6", GUEST6, port), "ECONNREFUSED");
    assert_eq!(client.echo("old", "late"), "ECONNRESET");
    assert!(!server.got("late"));
    for name in ["peer4", "peer6"] {
        assert_eq!(client.echo(name, "replication"), "got replication");
    }
    let _own = std::net::TcpStream::connect((GUEST4, port)).expect("this machine passes");
    assert_eq!(
        sockets::destroy_clients(port, &[PEER4.parse().unwrap(), PEER6.parse().unwrap()]).unwrap(),
        1
    );
    assert_eq!(client.echo("peer4", "goes on"), "got goes on");

    door.set_peers(vec![PEER6.parse().unwrap()]).unwrap();
    assert_eq!(client.echo("peer6", "remains"), "got remains");
    assert_eq!(client.echo("peer4", "no peer any more"), "ECONNRESET");
    door.uninstall().unwrap();
    door.uninstall().unwrap();
    assert_eq!(sh("nft list ruleset"), "");
    assert_eq!(client.connect("m", GUEST_MANAGEMENT, port), "ok");
}

#[test]
fn a_restarted_agent_adopts_the_door_as_it_stands() {
    if !alone("a_restarted_agent_adopts_the_door_as_it_stands") {
        return;
    }
    let (mut world, server, first) = world();
    first.install(DoorState::Closed).unwrap();
    drop(first);
    assert_eq!(door(server.port).install(DoorState::Open).unwrap(), DoorState::Closed);
    assert_eq!(world.client.connect("a", GUEST4, server.port), "ECONNREFUSED");

    door(server.port).set(DoorState::Leased(LEASE)).unwrap();
    thread::sleep(LEASE / 2);
    let DoorState::Leased(left) = door(server.port).install(DoorState::Open).unwrap() else {
        panic!("it was leased");
    };
    // The kernel counts in ticks of some milliseconds.
    assert!(
        left <= LEASE / 2 + Duration::from_millis(20),
        "{left:?} of {LEASE:?} after half of it"
    );
    assert!(!matches!(door(server.port).state().unwrap(), DoorState::Leased(now) if now > left));

    door(server.port).set(DoorState::Open).unwrap();
    assert_eq!(world.client.connect("a", GUEST4, server.port), "ok");
    // Another interface and port: the rules of before are gone, the door stands as it stood.
    let moved = DoorSettings {
        data_nic: "mgmt0".into(),
        port: server.port,
        peers: vec![],
    };
    assert_eq!(Door::new(moved).unwrap().install(DoorState::Closed).unwrap(), DoorState::Open);
    assert_eq!(world.client.connect("b", GUEST_MANAGEMENT, server.port), "ok");
    assert_eq!(world.client.echo("a", "by the other NIC"), "ECONNRESET");
    let rules = sh("nft list ruleset");
    assert_eq!(rules.matches("mgmt0").count(), 3, "{rules}");
    assert!(!rules.contains("data0"), "{rules}");
}

#[test]
fn clients_of_an_address_that_has_left_are_refused_at_once() {
    if !alone("clients_of_an_address_that_has_left_are_refused_at_once") {
        return;
    }
    let (mut world, server, door) = world();
    door.install(DoorState::Open).unwrap();
    for (vip, prefix) in [("10.9.0.200", 24), ("fd09::200", 64)] {
        let nodad = if vip.contains(':') { "nodad" } else { "" };
        sh(&format!("ip address add {vip}/{prefix} dev data0 {nodad}"));
        // From here on the client knows where it is.
        assert_eq!(world.client.connect(vip, vip, server.port), "ok");
        sh(&format!("ip address del {vip}/{prefix} dev data0"));
        // Who gets no answer tries again after one second, and is refused then. A busy machine may be as slow once, but not each time.
        let took = (0..5).map(|_| {
            let began = Instant::now();
            assert_eq!(world.client.connect("again", vip, server.port), "ECONNREFUSED");
            began.elapsed()
        });
        let took: Vec<Duration> = took.collect();
        assert!(took.iter().any(|took| *took < Duration::from_millis(900)), "{took:?}");
    }
    // What is this machine's own is let in as before.
    assert_eq!(world.client.connect("own", GUEST4, server.port), "ok");
}

#[test]
fn what_is_missing_is_named() {
    let way = [
        "unshare",
        "--net",
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
    ];
    if !alone_by("what_is_missing_is_named", &way) {
        return;
    }
    let refused = door(3306).install(DoorState::Open).unwrap_err();
    assert!(
        matches!(refused, DoorError::Netlink(NetlinkError::NotPermitted { .. })),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
    let name = "an-interface-with-a-long-name";
    let settings = DoorSettings {
        data_nic: name.into(),
        port: 3306,
        peers: vec![],
    };
    assert!(Door::new(settings).unwrap_err().to_string().contains(name));
}

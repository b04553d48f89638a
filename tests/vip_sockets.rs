//! Ending other processes' TCP connections, in real network namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or that is skipped, says so"
)]

mod vip_support;

use datastore_api::Change;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use trove_guestagent::vip::{routes, sockets};
use vip_support::*;

#[test]
fn clients_see_the_reset_at_once_on_each_family() {
    if !alone("clients_see_the_reset_at_once_on_each_family") {
        return;
    }
    let mut world = World::new();
    let client = &mut world.client;
    let dual = Server::on(Ipv6Addr::UNSPECIFIED.into());
    let only4 = Server::on(Ipv4Addr::UNSPECIFIED.into());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (name, to, server) in [
        ("mapped", GUEST4, &dual),
        ("v6", GUEST6, &dual),
        ("v4", GUEST4, &only4),
        ("other", GUEST_MANAGEMENT, &dual),
    ] {
        assert_eq!(client.connect(name, to, server.port), "ok");
        assert_eq!(client.echo(name, "hello"), "got hello");
    }
    assert_eq!(
        sockets::destroy(ip(GUEST4), dual.port).unwrap(),
        1,
        "an IPv4 client of a dual-stack listener"
    );
    assert_eq!(client.read("mapped", 2.0), "ECONNRESET");
    assert_eq!(client.echo("v6", "untouched"), "got untouched");
    assert_eq!(sockets::destroy(ip(GUEST6), dual.port).unwrap(), 1);
    assert_eq!(client.read("v6", 2.0), "ECONNRESET");
    assert_eq!(sockets::destroy(ip(GUEST4), only4.port).unwrap(), 1);
    assert_eq!(client.read("v4", 2.0), "ECONNRESET");
    assert_eq!(client.echo("other", "untouched"), "got untouched");
    assert_eq!(sockets::destroy(ip(GUEST4), dual.port).unwrap(), 0, "nothing left");
    assert_eq!(client.connect("again", GUEST4, dual.port), "ok", "the listeners live");

    for n in 0..200 {
        assert_eq!(client.connect(&format!("many{n}"), GUEST6, dual.port), "ok");
    }
    let ended = sockets::destroy_clients(dual.port, &[ip("10.8.0.2"), ip("::ffff:10.9.0.2")]).unwrap();
    assert_eq!(ended, 200, "all but the spared addresses");
    assert_eq!(client.echo("other", "spared"), "got spared");
    assert_eq!(client.echo("again", "spared"), "got spared");
}

#[test]
fn a_reader_of_a_silent_server_wakes_at_once() {
    if !alone("a_reader_of_a_silent_server_wakes_at_once") {
        return;
    }
    let mut world = World::new();
    let server = Server::on(Ipv6Addr::UNSPECIFIED.into());
    assert_eq!(world.client.connect("a", GUEST4, server.port), "ok");
    // The server's own connection to somebody silent: the client program never sends unasked.
    let listener = std::net::TcpListener::bind((GUEST4, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(world.client.connect("b", GUEST4, port), "ok");
    let (silent, from) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut silent = silent;
        std::io::Read::read(&mut silent, &mut [0; 1]).unwrap_err().kind()
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    let start = std::time::Instant::now();
    assert_eq!(sockets::destroy_towards(from.ip(), from.port()).unwrap(), 1);
    let kind = reader.join().unwrap();
    println!(
        "the reader woke {:?} after its connection was ended: {kind:?}",
        start.elapsed()
    );
    assert_eq!(world.client.read("b", 2.0), "ECONNRESET");
    assert_eq!(world.client.echo("a", "untouched"), "got untouched");
}

#[test]
fn an_unreachable_address_fails_at_once_until_it_is_taken_back() {
    if !alone("an_unreachable_address_fails_at_once_until_it_is_taken_back") {
        return;
    }
    let world = World::new();
    sh("ip route add unreachable 10.9.0.77/32");
    let listener = |to: &str| {
        let mut child = program("nsenter");
        child.args(["-t", &world.there.pid().to_string(), "-n", "python3", "-c"]);
        child.arg(format!("import socket; s = socket.create_server(('{to}', 4000), family=socket.AF_INET6 if ':' in '{to}' else socket.AF_INET); print(flush=True); input()"));
        child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        std::io::Read::read(child.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
        Ended(child)
    };
    let _both = (listener(CLIENT4), listener(PEER6));
    let connect = |to: &str| std::net::TcpStream::connect((to, 4000)).map(drop).map_err(|e| e.kind());
    for to in [CLIENT4, PEER6] {
        let ip: IpAddr = to.parse().unwrap();
        assert_eq!(connect(to), Ok(()));
        routes::unreachable(ip).unwrap();
        routes::unreachable(ip).unwrap();
        assert_eq!(connect(to), Err(std::io::ErrorKind::HostUnreachable));
        assert_eq!(routes::reachable(ip).unwrap(), Change::Done);
        assert_eq!(routes::reachable(ip).unwrap(), Change::Unchanged);
        assert_eq!(connect(to), Ok(()));
        routes::unreachable(ip).unwrap();
    }
    assert_eq!(routes::clean().unwrap().len(), 2);
    assert_eq!(routes::clean().unwrap().len(), 0);
    assert_eq!((connect(CLIENT4), connect(PEER6)), (Ok(()), Ok(())));
    assert!(routes::unreachable("10.9.0.77".parse().unwrap()).is_err(), "somebody else's");
    assert!(sh("ip route show type unreachable").contains("10.9.0.77"));
}

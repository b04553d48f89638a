//! What the settings are, for the files that the control plane really writes.

use crate::{Conf, GUEST_INFO};
use datastore_api::ExposeSecret;
use std::path::Path;
use trove_guestagent::conductor::Era;
use trove_guestagent::config::{DataInterface, SslMode, Supervisor};
use trove_guestagent::pair::Plane;

#[test]
fn the_files_of_a_guest_of_today() {
    let settings = Conf::guest("").settings();
    assert_eq!(settings.guest_id, "9d1c7f2e-3f6a-4d3b-8a57-1f0f4b8f6c11");
    assert_eq!(settings.datastore_manager, "mariadb");
    assert_eq!(settings.datastore_version.as_deref(), Some("10.11"));
    assert_eq!((settings.era, settings.ssl_mode), (Era::Hibiscus, None));
    assert!(settings.network_isolation && settings.network.is_none());
    let bus = settings.bus;
    let brokers: Vec<_> = bus
        .brokers
        .iter()
        .map(|b| (b.host.as_str(), b.port, b.password.expose_secret()))
        .collect();
    assert_eq!(brokers, [("10.0.0.5", 5672, "hush@one"), ("10.0.0.6", 5671, "hushtwo")]);
    assert_eq!((bus.vhost.as_str(), bus.control_exchange.as_str()), ("trove", "trove"));
    assert_eq!(bus.topic, "guestagent.9d1c7f2e-3f6a-4d3b-8a57-1f0f4b8f6c11");
    assert_eq!(bus.conductor_topic, "trove-conductor");
    assert_eq!(bus.key.unwrap().expose_secret(), "jvUB2RlsEhmpUD3zgKQ6dFqNa8nXYw17");
    assert_eq!(
        (bus.login_method.as_str(), bus.heartbeat.as_secs(), bus.prefetch),
        ("AMQPLAIN", 15, 256)
    );
    assert!(bus.durable && !bus.auto_delete && bus.tls.is_none());
    let datastore = settings.datastore;
    assert_eq!(datastore.mount_point, Path::new("/var/lib/mysql"));
    assert_eq!(datastore.service_user, "mysql");
    assert_eq!(datastore.format_options, ["-m", "5"]);
    assert_eq!(datastore.options["docker_image"], "registry/mariadb");
    assert_eq!(settings.log.file.unwrap(), Path::new("/var/log/trove/trove-guestagent.log"));
    assert_eq!(settings.agent.socket, Path::new("/run/trove-guestagent/agent.sock"));
    assert_eq!(settings.conductor.report_interval.as_secs(), 30);
}

#[test]
fn the_broker_as_mitaka_names_it() {
    let old = "[DEFAULT]\nguest_id=g\ndatastore_manager=mysql\ntenant_id=t\nrabbit_host=10.1.1.1\nrabbit_password=f7999d1955c5014aa32c\n\
               rabbit_userid=trove\n";
    let settings = Conf::new(&[("guest_info.conf", old)]).settings();
    assert_eq!(settings.era, Era::Mitaka);
    let broker = &settings.bus.brokers[0];
    assert_eq!(
        (broker.host.as_str(), broker.port, broker.user.as_str()),
        ("10.1.1.1", 5672, "trove")
    );
    assert_eq!(
        (broker.password.expose_secret(), settings.bus.vhost.as_str()),
        ("f7999d1955c5014aa32c", "/")
    );
    let several = format!("{old}[oslo_messaging_rabbit]\nrabbit_hosts = a:1, [::1]:2, b\nrabbit_virtual_host = v\n");
    let bus = Conf::new(&[("guest_info.conf", &several)]).settings().bus;
    let hosts: Vec<_> = bus.brokers.iter().map(|b| (b.host.as_str(), b.port)).collect();
    assert_eq!((hosts, bus.vhost.as_str()), (vec![("a", 1), ("::1", 2), ("b", 5672)], "v"));
}

#[test]
fn the_era_follows_from_what_guest_info_holds() {
    let without = |names: &[&str]| {
        let keep = |line: &&str| !names.iter().any(|name| line.starts_with(name));
        GUEST_INFO.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    let era = |text: &str| Conf::new(&[("guest_info.conf", text)]).settings().era;
    assert_eq!(era(GUEST_INFO), Era::Hibiscus);
    assert_eq!(era(&without(&["ssl_mode"])), Era::Epoxy);
    assert_eq!(
        era(&without(&["ssl_mode", "datastore_registry", "replication"])),
        Era::Victoria
    );
    assert_eq!(
        era("[DEFAULT]\nguest_id=g\ndatastore_manager=mysql\n"),
        Era::Victoria,
        "in doubt a modern one"
    );
    assert_eq!(Conf::guest("[trove_guestagent]\nera = ussuri\n").settings().era, Era::Ussuri);
}

#[test]
fn the_registry_names_the_driver_after_a_rebuild() {
    let conf = Conf::guest("[DEFAULT]\ndatastore_manager = My Own Name\n[mariadb]\nmount_point = /data\n");
    let settings = conf.settings();
    assert_eq!(settings.datastore_manager, "mariadb");
    assert_eq!(settings.datastore.mount_point, Path::new("/data"));
    assert!(conf.warnings().iter().any(|w| w.contains("usual after a rebuild")));
}

#[test]
fn a_root_moves_every_path_that_is_not_set() {
    let agent = Conf::guest("[trove_guestagent]\nroot = /dev1\nrun_dir = /tmp/r\nsupervisor = supervised\n").settings();
    assert_eq!(agent.agent.state_dir, Path::new("/dev1/var/lib/trove-guestagent"));
    assert_eq!(agent.agent.socket, Path::new("/tmp/r/agent.sock"));
    assert_eq!(agent.agent.supervisor, Supervisor::Supervised);
    assert_eq!(agent.datastore.mount_point, Path::new("/dev1/var/lib/mysql"));
}

#[test]
fn the_drivers_section_wins_over_the_datastores() {
    let settings = Conf::guest("[mariadb]\nport = 1\nbind_address = a\n[datastore]\nport = 3307\n").settings();
    assert_eq!(settings.datastore.options["port"], "3307");
    assert_eq!(settings.datastore.options["bind_address"], "a");
    assert!(!settings.datastore.options.contains_key("mount_point"));
}

#[test]
fn tls_modes_and_heartbeats() {
    let settings = Conf::guest("[DEFAULT]\nssl_mode = mtls\n[trove_guestagent]\nheartbeat = 2.5\nprefetch = 9\n").settings();
    assert_eq!(settings.ssl_mode, Some(SslMode::Mtls));
    assert_eq!((settings.bus.heartbeat.as_millis(), settings.bus.prefetch), (2500, 9));
    let theirs = "[oslo_messaging_rabbit]\nheartbeat_timeout_threshold = 60\nrabbit_qos_prefetch_count = 5\n";
    let bus = Conf::guest(theirs).settings().bus;
    assert_eq!((bus.heartbeat.as_secs(), bus.prefetch), (60, 5));
}

#[test]
fn the_data_network_is_read_where_there_is_one() {
    let conf = Conf::guest("");
    let file = conf.path("eth1.json");
    conf.write(
        "conf.d/zz.conf",
        format!("[trove_guestagent]\nnetwork_file = {}\n", file.display()),
        0o600,
    );
    assert!(
        conf.settings().network.is_none(),
        "an instance without a port of its own has no such file"
    );
    let text = r#"{"mac_address": "fa:16:3e:11:22:33", "ipv4_address": "10.1.2.7", "ipv4_cidr": "10.1.2.0/24"}"#;
    conf.write("eth1.json", text, 0o600);
    assert_eq!(conf.settings().network.unwrap().address().unwrap().to_string(), "10.1.2.7");
    conf.write("eth1.json", text.replace("10.1.2.7", "10.1.2.700"), 0o600);
    assert_eq!(conf.errors(), ["DIR/eth1.json: ipv4_address: expected an IPv4 address"]);
    conf.write("eth1.json", "{", 0o600);
    assert_eq!(conf.errors(), ["DIR/eth1.json: expected a JSON object"]);
}

#[test]
fn a_pair_needs_no_option_where_the_data_network_is_described() {
    let plain = Conf::guest("").settings().pair;
    assert_eq!((plain.data_interface, plain.link_port, plain.plane), (None, 4450, Plane::Arp));
    assert_eq!(plain.keepalived_program, Path::new("/usr/sbin/keepalived"));
    assert!(plain.vip.is_empty() && plain.management_interface.is_none());

    let conf = Conf::guest("");
    let file = conf.path("eth1.json");
    let own = format!("[trove_guestagent]\nnetwork_file = {}\n", file.display());
    conf.write("conf.d/zz.conf", &own, 0o600);
    let text = r#"{"mac_address": "fa:16:3E:11:22:33", "ipv4_address": "10.1.2.7", "ipv4_cidr": "10.1.2.0/24"}"#;
    conf.write("eth1.json", text, 0o600);
    let by_mac = DataInterface::Mac("fa:16:3e:11:22:33".to_owned());
    assert_eq!(conf.settings().pair.data_interface, Some(by_mac));

    let more =
        "data_interface = eth1\nmanagement_interface = eth0\nlink_port = 4451\nvip = 10.1.2.9/24\nvip_plane = keepalived\n";
    conf.write("conf.d/zz.conf", format!("{own}{more}"), 0o600);
    let pair = conf.settings().pair;
    assert_eq!(pair.data_interface, Some(DataInterface::Named("eth1".to_owned())));
    assert_eq!(pair.management_interface.as_deref(), Some("eth0"));
    assert_eq!((pair.link_port, pair.plane), (4451, Plane::Keepalived));
    assert_eq!(pair.vip, ["10.1.2.9/24"]);
}

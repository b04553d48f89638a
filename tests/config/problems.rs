//! Bad input: each problem is named with file and line, all of them at once, and none shows a secret.

use crate::{Conf, GUEST_INFO};
use datastore_api::ExposeSecret;
use std::path::Path;
use trove_guestagent::config::{MAX_FILE, Source};

#[test]
fn all_problems_are_told_at_once() {
    let errors = Conf::guest(
        "[DEFAULT]\nreport_interval = 0\nvolume_fstype = zfs\nroot_grant_option = maybe\nlog_dir = here\ndatastore_registry_ext = x\n\
         [mariadb]\nmount_point = var\n[trove_guestagent]\nera = bronze\nprefetch = 70000\nself_ping = -1\nheart_beat = 3\nabc = 1\n",
    )
    .errors();
    let starts = [
        "zz.conf:2: [DEFAULT] report_interval: expected a whole number from 1 to 86400, found \"0\"",
        "zz.conf:3: [DEFAULT] volume_fstype: expected one of ext3, ext4, xfs, found \"zfs\"",
        "zz.conf:4: [DEFAULT] root_grant_option: expected true, 1, on, yes, false, 0, off or no, found \"maybe\"",
        "zz.conf:5: [DEFAULT] log_dir: expected an absolute path, found \"here\"",
        "zz.conf:6: [DEFAULT] datastore_registry_ext: expected name:value pairs",
        "zz.conf:8: [mariadb] mount_point: expected an absolute path, found \"var\"",
        "zz.conf:10: [trove_guestagent] era: expected one of auto, mitaka",
        "zz.conf:11: [trove_guestagent] prefetch: expected a whole number from 1 to 65535, found \"70000\"",
        "zz.conf:12: [trove_guestagent] self_ping: expected a number from 0 to 86400, found \"-1\"",
        "zz.conf:13: [trove_guestagent] heart_beat: there is no such option; heartbeat is meant perhaps",
        "zz.conf:14: [trove_guestagent] abc: there is no such option",
    ];
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{start}\nin {errors:#?}");
    }
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
}

#[test]
fn without_guest_info_it_is_said_what_is_missing() {
    let errors = Conf::new(&[]).errors();
    assert!(
        errors[0].starts_with("[DEFAULT] guest_id: is not set; guest_info.conf was not injected"),
        "{errors:?}"
    );
    assert!(errors[1].starts_with("[DEFAULT] datastore_manager: is not set"), "{errors:?}");
    assert_eq!(errors.len(), 2);
    let errors = Conf::guest("[DEFAULT]\nguest_id = a/b\n").errors();
    assert_eq!(
        errors,
        ["zz.conf:2: [DEFAULT] guest_id: expected at most 100 letters, digits, '-', '_' or '.'"]
    );
}

#[test]
fn files_that_cannot_be_read() {
    let mut conf = Conf::guest("");
    conf.write("conf.d/a.conf", b"[DEFAULT]\n\nx = \xff\n", 0o600);
    conf.write("conf.d/b.conf", vec![b'#'; MAX_FILE as usize + 1], 0o600);
    std::fs::create_dir(conf.path("conf.d/c.conf")).unwrap();
    std::os::unix::fs::symlink("nowhere", conf.path("conf.d/d.conf")).unwrap();
    conf.extra = vec![Source::File(conf.path("gone.conf")), Source::Dir(conf.path("gone.d"))];
    let wanted = [
        "a.conf: the file is not UTF-8 (line 3)",
        "b.conf: the file is larger than 1048576 bytes",
        "c.conf: this is not a regular file",
        "d.conf: the file cannot be read: No such file",
        "DIR/gone.conf: the file cannot be read: No such file",
        "DIR/gone.d: the folder cannot be read: No such file",
    ];
    let errors = conf.errors();
    assert_eq!(errors.len(), wanted.len(), "{errors:?}");
    for (error, wanted) in errors.iter().zip(wanted) {
        assert!(error.starts_with(wanted), "{error}");
    }
    let files = conf.load().report.files;
    assert_eq!(files.iter().filter(|file| file.status == "read").count(), 3);
    assert_eq!(files.len(), 8);
}

#[test]
fn syntax_errors_have_a_line_and_quote_nothing() {
    let conf = Conf::guest("key = 1\n[DEFAULT]\ninstance_rpc_encr_key jvUB2\n[oops\n");
    let errors = conf.errors();
    assert_eq!(
        errors,
        [
            "zz.conf:1: an assignment before any [section]",
            "zz.conf:3: an assignment has neither = nor :",
            "zz.conf:4: a section header must end with ]",
        ]
    );
}

#[test]
fn no_secret_is_in_a_report() {
    let third = "[DEFAULT]\ntransport_url = rabbit://u:hush1@h:99999/?nosuch=hush2\nlog_date_format = $instance_rpc_encr_key\n\
                 [oslo_messaging_rabbit]\nrabbit_password = hush3\n[datastore]\nadmin_password = hush4\n[mariadb]\nplain = $mine.x\n\
                 [mine]\nx = hush5\n[keystone_authtoken]\npassword = hush6\n";
    for url in ["", "?", "rabbit://u:hush1@h/?nosuch=hush2", "rabbit://u:hush1$hush7@h/"] {
        let conf = Conf::guest(&format!("{third}[DEFAULT]\ntransport_url = {url}\n"));
        let report = conf.load().report;
        let text = format!("{}{report:?}", serde_json::to_string(&report).unwrap());
        assert!(!text.contains("hush") && !text.contains("jvUB2"), "{url}: {text}");
    }
}

#[test]
fn a_secret_may_be_part_of_a_secret_only() {
    let conf = Conf::guest("[DEFAULT]\nlog_file = /$instance_rpc_encr_key\n");
    assert_eq!(
        conf.errors(),
        ["zz.conf:2: [DEFAULT] log_file: refers to a secret, which only a secret option may"]
    );
    let url = "[DEFAULT]\ntransport_url = rabbit://u:${instance_rpc_encr_key}@h/\n";
    let bus = Conf::guest(url).settings().bus;
    assert_eq!(bus.brokers[0].password.expose_secret(), "jvUB2RlsEhmpUD3zgKQ6dFqNa8nXYw17");
}

#[test]
fn the_transport_url_is_judged_as_upstream_judges_it() {
    let with = |url: &str| Conf::guest(&format!("[DEFAULT]\ntransport_url = {url}\n"));
    let of = |url: &str| with(url).errors().join("\n");
    assert!(of("rabbit://h/?sslcafile=/x").contains("\"sslcafile\", which is no option of [oslo_messaging_rabbit]"));
    assert!(
        of("rabbit://h/?rabbit_host=x").contains("which is no option"),
        "it is no option of today's driver"
    );
    assert!(of("rabbit://h/?ssl=perhaps").contains("[oslo_messaging_rabbit] ssl: expected true"));
    assert!(of("rabbit://h:0/").contains("port"));
    assert!(of("zmq://h/").contains("driver"));
    assert_eq!(
        of("rabbit://u:1?hush=x@h/"),
        "zz.conf:2: [DEFAULT] transport_url: a ? in a password must be written %3F"
    );
    let url = with("rabbit://u:p@a,b/");
    assert!(url.warnings().iter().any(|w| w.contains("1 of 2 hosts have no user")));
}

#[test]
fn queue_options_that_exclude_each_other() {
    let errors =
        Conf::guest("[oslo_messaging_rabbit]\nrabbit_ha_queues=1\nrabbit_quorum_queue=1\nrabbit_stream_fanout=1\n").errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("zz.conf:3: [oslo_messaging_rabbit] rabbit_quorum_queue: and rabbit_ha_queues are both on"));
    let conf = Conf::guest("[oslo_messaging_rabbit]\nrabbit_login_method = RABBIT-CR-DEMO\n");
    assert!(conf.errors()[0].contains("not supported"));
}

#[test]
fn certificates_must_be_readable_pem_files() {
    let conf = Conf::guest("");
    let (pem, key, not) = (conf.path("ca.pem"), conf.path("key.pem"), conf.path("not.pem"));
    conf.write("ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
    conf.write("key.pem", "-----BEGIN PRIVATE KEY-----\n", 0o644);
    conf.write("not.pem", "hello\n", 0o600);
    let with = |ca: &Path, cert: &str, key: &Path| {
        let text = format!(
            "[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = {}\nssl_cert_file = {cert}\nssl_key_file = {}\n",
            ca.display(),
            key.display()
        );
        conf.write("conf.d/zz.conf", text, 0o600);
        &conf
    };
    let good = with(&pem, &pem.display().to_string(), &key).settings().bus.tls.unwrap();
    assert!(good.verify_hostname);
    assert!(
        conf.warnings()
            .iter()
            .any(|w| w.contains("every user of this machine can read DIR/key.pem"))
    );
    let errors = with(&not, "", &conf.path("gone.pem")).errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].contains("DIR/not.pem is not a PEM file"));
    assert!(errors[1].contains("ssl_key_file: DIR/gone.pem: the file cannot be read"));
    assert!(errors[2].contains("is set without ssl_cert_file"));
    conf.write("conf.d/zz.conf", "[oslo_messaging_rabbit]\nrabbit_use_ssl = yes\n", 0o600);
    let warnings = conf.warnings();
    assert!(
        warnings.iter().any(|w| w.contains("the broker's certificate is not checked")),
        "{warnings:?}"
    );
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("set by its old name [oslo_messaging_rabbit] rabbit_use_ssl"))
    );
}

#[test]
fn options_without_effect_are_warned_of_unless_they_say_nothing() {
    let conf = Conf::guest(
        "[DEFAULT]\ndevice_path = /dev/vdc\nlog_config_append = /x\nrabbit_host = old\n\
         [oslo_messaging_rabbit]\nrabbit_retry_interval = 5\nheartbeat_rate = 3\nssl_ca_file = /x\n",
    );
    let warnings = conf.warnings();
    for wanted in [
        "zz.conf:2: [DEFAULT] device_path: has no effect here: write it in section [mariadb]",
        "zz.conf:3: [DEFAULT] log_config_append: has no effect",
        "zz.conf:4: [oslo_messaging_rabbit] rabbit_host: has no effect: transport_url is set",
        "zz.conf:6: [oslo_messaging_rabbit] rabbit_retry_interval: has no effect: this agent tries again",
        "zz.conf:8: [oslo_messaging_rabbit] ssl_ca_file: has no effect: ssl is off",
    ] {
        assert!(warnings.iter().any(|w| w.starts_with(wanted)), "{wanted}\nin {warnings:#?}");
    }
    assert!(
        !warnings.iter().any(|w| w.contains("heartbeat_rate")),
        "upstream's default is no news"
    );
}

#[test]
fn a_secret_that_everybody_can_read_is_warned_of_once_a_file() {
    let conf = Conf::guest("");
    conf.write("conf.d/guest_info.conf", GUEST_INFO, 0o644);
    let warnings = conf.warnings();
    let found: Vec<_> = warnings.iter().filter(|w| w.contains("chmod o-r")).collect();
    assert_eq!(found.len(), 1, "{warnings:?}");
    assert!(found[0].starts_with("guest_info.conf:10: [DEFAULT] instance_rpc_encr_key: every user"));
}

#[test]
fn what_is_not_ours_is_listed_and_a_mistyped_default_is_warned_of() {
    let conf = Conf::guest("[default]\nreport_interval = 5\n[mysql]\nport = 1\n");
    let report = conf.load().report;
    let ignored: Vec<_> = report.ignored.iter().map(|i| format!("{}.{}", i.group, i.option)).collect();
    assert_eq!(ignored, ["DEFAULT.tenant_id", "default.report_interval", "mysql.port"]);
    assert!(
        conf.warnings()
            .iter()
            .any(|w| w.starts_with("zz.conf:2: section [default] is not [DEFAULT]"))
    );
}

#[test]
fn paths_of_our_own_that_contradict_each_other() {
    let errors = Conf::guest("[trove_guestagent]\nrun_dir = /x\nstate_dir = /x\nsocket = s\n").errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("run_dir: is the same folder as state_dir"));
    assert!(errors[1].contains("zz.conf:4: [trove_guestagent] socket: expected an absolute path"));
}

#[test]
fn service_addresses_and_nics_are_judged_one_by_one() {
    let errors = Conf::guest(
        "[trove_guestagent]\ndata_interface = eth1:0\nmanagement_interface = a-name-too-long-for-a-nic\nlink_port = 0\nvip_plane = bgp\n\
         vip = 10.1.2.9, 10.1.2.9/33, fe80::1/64, 10.1.2.8/24, 10.1.2.8/24\nkeepalived_program = keepalived\n",
    )
    .errors();
    let starts = [
        "zz.conf:2: [trove_guestagent] data_interface: expected the name of a NIC",
        "zz.conf:3: [trove_guestagent] management_interface: expected the name of a NIC",
        "zz.conf:4: [trove_guestagent] link_port: expected a whole number from 1 to 65535",
        "zz.conf:5: [trove_guestagent] vip_plane: expected one of arp, keepalived, found \"bgp\"",
        "zz.conf:6: [trove_guestagent] vip: \"10.1.2.9\" is not an address with a prefix length",
        "zz.conf:6: [trove_guestagent] vip: the prefix length of 10.1.2.9/33",
        "zz.conf:6: [trove_guestagent] vip: fe80::1/64 is a link-local address",
        "zz.conf:6: [trove_guestagent] vip: the service address 10.1.2.8 is listed twice",
        "zz.conf:7: [trove_guestagent] keepalived_program: expected an absolute path",
    ];
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{start}\nin {errors:#?}");
    }
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    let errors = Conf::guest("[trove_guestagent]\nvip = 10.1.2.9/24\n").errors();
    assert_eq!(
        errors,
        ["zz.conf:2: [trove_guestagent] vip: needs data_interface, or a network_file that describes the NIC"]
    );
}

#[test]
fn a_service_address_lies_in_the_data_network_and_is_nobodys_own() {
    let conf = Conf::guest("");
    let file = conf.path("eth1.json");
    let text = r#"{"mac_address": "fa:16:3e:11:22:33", "ipv4_address": "10.1.2.7", "ipv4_cidr": "10.1.2.0/24"}"#;
    conf.write("eth1.json", text, 0o600);
    let own = "vip = 10.1.3.9/24, 10.1.2.7/24, fd00::9/64\n";
    conf.write(
        "conf.d/zz.conf",
        format!("[trove_guestagent]\nnetwork_file = {}\n{own}", file.display()),
        0o600,
    );
    assert_eq!(
        conf.errors(),
        [
            "zz.conf:3: [trove_guestagent] vip: 10.1.3.9/24 is outside the data network of network_file (10.1.2.7/24)",
            "zz.conf:3: [trove_guestagent] vip: 10.1.2.7/24 is this guest's own address on the data network",
            "zz.conf:3: [trove_guestagent] vip: fd00::9/64 is of a family that the data network of network_file has not",
        ]
    );
    let one_nic = Conf::guest("[trove_guestagent]\ndata_interface = eth0\nmanagement_interface = eth0\n").warnings();
    assert!(
        one_nic.iter().any(|w| w.contains("is the NIC of the data network too")),
        "{one_nic:?}"
    );
}

//! Which source wins.

use crate::Conf;
use trove_guestagent::config::{Origin, Source};

fn exchange(conf: &Conf) -> String {
    conf.settings().bus.control_exchange
}

const SET: &str = "[DEFAULT]\ncontrol_exchange = third\n";

#[test]
fn the_later_file_of_a_folder_wins() {
    assert_eq!(exchange(&Conf::guest("")), "trove");
    assert_eq!(exchange(&Conf::guest(SET)), "third");
}

#[test]
fn files_and_folders_are_applied_in_the_order_of_the_command_line() {
    let mut conf = Conf::guest("");
    conf.write("later.conf", "[DEFAULT]\ncontrol_exchange = later\n", 0o600);
    conf.extra.push(Source::File(conf.path("later.conf")));
    assert_eq!(exchange(&conf), "later");
    conf.extra.push(Source::Dir(conf.path("conf.d")));
    assert_eq!(exchange(&conf), "trove");
}

#[test]
fn the_environment_wins_over_files_and_the_command_line_over_both() {
    let conf = Conf::guest(SET).env("OS_DEFAULT__CONTROL_EXCHANGE", "env");
    assert_eq!(exchange(&conf), "env");
    assert_eq!(exchange(&conf.cli("DEFAULT", "control_exchange", "cli")), "cli");
}

#[test]
fn an_old_name_counts_where_it_stands() {
    let quorum = |third| Conf::guest(third).settings().bus.durable;
    assert!(
        !quorum("[DEFAULT]\nrabbit_durable_queues = false\n"),
        "a later file's old name wins"
    );
    let both = "[oslo_messaging_rabbit]\nrabbit_durable_queues = false\namqp_durable_queues = true\n";
    assert!(quorum(both), "in one file the present name wins");
    let users = Conf::guest("[mariadb]\nignore_users = a,b,\n")
        .settings()
        .datastore
        .ignore_users;
    assert_eq!(users, ["a", "b"]);
    assert_eq!(
        Conf::guest("").settings().datastore.ignore_users,
        ["os_admin"],
        "[DEFAULT] is an old place of it"
    );
}

#[test]
fn options_of_the_transport_url_win_over_everything() {
    let third = "[DEFAULT]\ntransport_url = rabbit://u:p@h/?rabbit_quorum_queue=1&heartbeat_timeout_threshold=7\n\
                 [oslo_messaging_rabbit]\nheartbeat_timeout_threshold = 9\n";
    let conf = Conf::guest(third).cli("oslo_messaging_rabbit", "rabbit_quorum_queue", "0");
    let bus = conf.settings().bus;
    assert!(bus.queue.quorum && bus.durable);
    assert_eq!(bus.heartbeat.as_secs(), 7);
    let report = conf.load().report;
    let value = report
        .values
        .iter()
        .find(|v| v.option == "heartbeat_timeout_threshold")
        .unwrap();
    assert_eq!((value.value.as_deref(), &value.origin), (Some("7"), &Origin::TransportUrl));
    assert_eq!(value.overridden.len(), 1);
}

#[test]
fn it_is_told_which_file_won() {
    let conf = Conf::guest(SET);
    assert!(
        conf.warnings().iter().any(|w| {
            w == "zz.conf:2: [DEFAULT] control_exchange: this value wins over another one in trove-guestagent.conf:3"
        })
    );
    let same = Conf::guest("[DEFAULT]\ncontrol_exchange = trove\n");
    assert!(
        !same.warnings().iter().any(|w| w.contains("wins")),
        "the same value twice is no news"
    );
}

#[test]
fn hidden_files_and_other_suffixes_of_a_folder_do_not_count() {
    let conf = Conf::guest("");
    for name in [".zzz.conf", "zzz.conf~", "zzz.cnf"] {
        conf.write(&format!("conf.d/{name}"), SET, 0o600);
    }
    assert_eq!(exchange(&conf), "trove");
}

#[test]
fn references_are_replaced() {
    let of = |third: &str| Conf::guest(third).settings().log.file.unwrap().display().to_string();
    assert_eq!(
        of("[DEFAULT]\nlog_file = /x/${guest_id}.log\n"),
        "/x/9d1c7f2e-3f6a-4d3b-8a57-1f0f4b8f6c11.log"
    );
    assert_eq!(
        of("[DEFAULT]\nlog_file = /x/$report_interval-$$a\nreport_interval=007\n"),
        "/x/7-$a"
    );
    assert_eq!(
        of("[DEFAULT]\nlog_file = /x/$mine.name\n[mine]\nname = $DEFAULT.conductor_queue\n"),
        "/x/trove-conductor"
    );
    assert_eq!(of("[DEFAULT]\nlog_file = /x/\\$a $ 9\n"), "/x/$a $ 9");
}

#[test]
fn references_that_lead_nowhere_or_in_a_circle_are_errors() {
    let conf = Conf::guest("[DEFAULT]\nlog_file = /$nothing\ncontrol_exchange = $a\na = ${b}\nb = $control_exchange\n");
    let errors = conf.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors
            .iter()
            .any(|e| e.starts_with("zz.conf:2: [DEFAULT] log_file: $nothing names no option"))
    );
    assert!(
        errors
            .iter()
            .any(|e| e.starts_with("zz.conf:3: [DEFAULT] control_exchange: $control_exchange leads back"))
    );
}

//! keepalived's configuration as text. Pure.

use super::KeepalivedSettings;
use crate::vip::{Address, Vip, VipError};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The same on both hosts, and as high as may be: the wait after a master's farewell is (256 - priority) / 256 of an advertisement.
const PRIORITY: u8 = 254;
/// VRRP counts in hundredths of a second, in 12 bits.
const SHORTEST_ADVERT: Duration = Duration::from_millis(10);
const LONGEST_ADVERT: Duration = Duration::from_millis(40_950);

/// Where keepalived's own files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// 1: may hold. Anything else, or no file: may not.
    pub may_hold: PathBuf,
    /// What keepalived tells.
    pub fifo: PathBuf,
    pub pid: PathBuf,
    pub vrrp_pid: PathBuf,
}

impl Files {
    pub fn below(run_dir: &Path) -> Self {
        Self {
            may_hold: run_dir.join("may-hold"),
            fifo: run_dir.join("notify"),
            pid: run_dir.join("keepalived.pid"),
            vrrp_pid: run_dir.join("vrrp.pid"),
        }
    }
}

/// The configuration, or why there can be none.
pub(super) fn configuration(nic: &str, vip: &Vip, settings: &KeepalivedSettings, files: &Files) -> Result<String, VipError> {
    let wrong = |problem: String| VipError::Plane {
        doing: "plan the VRRP instance",
        problem,
    };
    let KeepalivedSettings { source, peers, .. } = settings;
    let v4 = source.is_ipv4();
    if peers.is_empty() || peers.contains(source) || peers.iter().any(|peer| peer.is_ipv4() != v4) {
        let peers = list(peers);
        return Err(wrong(format!(
            "the peers [{peers}] must be other hosts' addresses of the family of {source}"
        )));
    }
    if settings.router_id == 0 {
        return Err(wrong("the virtual router id must be 1 to 255".to_owned()));
    }
    if settings.advert < SHORTEST_ADVERT || settings.advert > LONGEST_ADVERT {
        return Err(wrong(format!(
            "the advertisement interval {:?} is not between {SHORTEST_ADVERT:?} and {LONGEST_ADVERT:?}",
            settings.advert
        )));
    }
    let (main, excluded): (Vec<&Address>, Vec<&Address>) =
        vip.addresses().iter().partition(|address| address.ip().is_ipv4() == v4);
    if main.is_empty() {
        return Err(wrong(format!("no service address is of the family of {source}")));
    }
    for path in [&files.may_hold, &files.fifo] {
        let odd = |c: char| c.is_control() || c.is_whitespace() || "\"'!#{}$@~\\".contains(c);
        if path.to_str().is_none_or(|text| text.contains(odd)) {
            return Err(wrong(format!("the path {} has characters that do not fit", path.display())));
        }
    }

    let advert = settings.advert.as_millis() / 10;
    let (may_hold, fifo) = (files.may_hold.display(), files.fifo.display());
    let mut text = format!(
        "# Written by trove-guestagent; it replaces this file as a whole.
global_defs {{
    router_id trove_guestagent
    script_user nobody
    enable_script_security
    vrrp_version 3
    vrrp_notify_fifo {fifo}
    vrrp_garp_master_delay 1
    vrrp_garp_master_repeat 3
    vrrp_garp_master_refresh 60
    vrrp_garp_lower_prio_repeat 3
    vrrp_higher_prio_send_advert true
}}
track_file may_hold {{
    file \"{may_hold}\"
    weight 0 reverse
}}
vrrp_instance {INSTANCE} {{
    state BACKUP
    nopreempt
    interface {nic}
    virtual_router_id {router_id}
    priority {PRIORITY}
    advert_int {seconds}.{hundredths:02}
    unicast_src_ip {source}
",
        router_id = settings.router_id,
        seconds = advert / 100,
        hundredths = advert % 100,
    );
    let mut block = |name: &str, lines: &mut dyn Iterator<Item = String>| {
        let lines: String = lines.fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "        {line}");
            all
        });
        if !lines.is_empty() {
            let _ = writeln!(text, "    {name} {{\n{lines}    }}");
        }
    };
    block("unicast_peer", &mut peers.iter().map(IpAddr::to_string));
    block("virtual_ipaddress", &mut main.iter().map(|a| format!("{a} dev {nic}")));
    block(
        "virtual_ipaddress_excluded",
        &mut excluded.iter().map(|a| format!("{a} dev {nic}")),
    );
    block("track_file", &mut ["may_hold".to_owned()].into_iter());
    text.push_str("}\n");
    Ok(text)
}

/// The instance's name.
const INSTANCE: &str = "vip";

/// The state in a line of the FIFO, if it is about our instance: `INSTANCE "vip" MASTER 254`.
pub(super) fn told(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    let ours = words.next() == Some("INSTANCE") && words.next().is_some_and(|name| name.trim_matches('"') == INSTANCE);
    words.next().filter(|_| ours)
}

fn list(all: &[IpAddr]) -> String {
    all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(vip: &[&str], source: &str, peers: &[&str], advert_ms: u64) -> Result<String, String> {
        let mut settings = KeepalivedSettings::new(
            Path::new("/run/x"),
            Path::new("/var/lib/x"),
            source.parse().unwrap(),
            peers.iter().map(|p| p.parse().unwrap()).collect(),
            7,
        );
        settings.advert = Duration::from_millis(advert_ms);
        let files = Files::below(&settings.run_dir);
        configuration("eth1", &Vip::parse(vip).unwrap(), &settings, &files).map_err(|e| e.to_string())
    }

    #[test]
    fn both_families_are_one_instance() {
        let text = text(&["fd00::9/64", "10.0.0.9/24"], "10.0.0.1", &["10.0.0.2"], 100).unwrap();
        assert!(
            text.contains("    virtual_ipaddress {\n        10.0.0.9/24 dev eth1\n    }\n"),
            "{text}"
        );
        assert!(
            text.contains("    virtual_ipaddress_excluded {\n        fd00::9/64 dev eth1\n    }\n"),
            "{text}"
        );
        assert!(
            text.contains("advert_int 0.10\n") && text.contains("file \"/run/x/keepalived/may-hold\""),
            "{text}"
        );
        assert!(!text.contains("script ") && text.contains("nopreempt"), "{text}");
    }

    #[test]
    fn what_vrrp_cannot_do_is_refused() {
        let fails = |vip: &str, source: &str, peers: &[&str], advert| text(&[vip], source, peers, advert).unwrap_err();
        assert!(fails("fd00::9/64", "10.0.0.1", &["10.0.0.2"], 100).contains("family of 10.0.0.1"));
        assert!(fails("10.0.0.9/24", "10.0.0.1", &[], 100).contains("peers []"));
        assert!(fails("10.0.0.9/24", "10.0.0.1", &["10.0.0.1"], 100).contains("other hosts"));
        assert!(fails("10.0.0.9/24", "10.0.0.1", &["fd00::2"], 100).contains("family"));
        assert!(fails("10.0.0.9/24", "10.0.0.1", &["10.0.0.2"], 5).contains("5ms"));
    }

    #[test]
    fn the_fifo_is_read() {
        assert_eq!(told("INSTANCE \"vip\" MASTER 254"), Some("MASTER"));
        assert_eq!(told("INSTANCE \"other\" MASTER 254"), None);
        assert_eq!(told("GROUP \"vip\" MASTER 254"), None);
        assert_eq!(told(""), None);
    }
}

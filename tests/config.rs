//! Configuration as the agent reads it: precedence, every problem with its file and line, no secret in the report.

#[path = "config/golden.rs"]
mod golden;
#[path = "config/problems.rs"]
mod problems;
#[path = "config/sources.rs"]
mod sources;
#[path = "config/values.rs"]
mod values;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use trove_guestagent::config::{self, Loaded, Override, Report, Settings, Severity, Source, Sources};

/// guest_info.conf as the control plane of today writes it.
pub(crate) const GUEST_INFO: &str = include_str!("fixtures/config/guest_info.conf");
/// A plain trove-guestagent.conf.
pub(crate) const AGENT_CONF: &str = include_str!("fixtures/config/trove-guestagent.conf");

/// A folder of configuration files.
pub(crate) struct Conf {
    dir: tempfile::TempDir,
    pub(crate) overrides: Vec<Override>,
    pub(crate) env: HashMap<String, String>,
    pub(crate) extra: Vec<Source>,
}

impl Conf {
    /// With these files in `conf.d`, readable by their owner only.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("conf.d")).expect("a folder");
        let conf = Self {
            dir,
            overrides: Vec::new(),
            env: HashMap::new(),
            extra: Vec::new(),
        };
        for (name, text) in files {
            conf.write(&format!("conf.d/{name}"), text, 0o600);
        }
        conf
    }

    /// The files of a real guest, and a third one that comes last.
    pub(crate) fn guest(third: &str) -> Self {
        Self::new(&[
            ("guest_info.conf", GUEST_INFO),
            ("trove-guestagent.conf", AGENT_CONF),
            ("zz.conf", third),
        ])
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    }

    pub(crate) fn cli(mut self, group: &str, option: &str, value: &str) -> Self {
        self.overrides.push(Override {
            group: group.into(),
            option: option.into(),
            value: value.into(),
        });
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub(crate) fn load(&self) -> Loaded {
        let env = self.env.clone();
        let mut files = vec![Source::Dir(self.path("conf.d"))];
        files.extend(self.extra.iter().cloned());
        config::load(&Sources {
            files,
            overrides: self.overrides.clone(),
            env: Box::new(move |name| env.get(name).cloned()),
            program: "no-such-program".into(),
            home: self.path("home"),
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        let loaded = self.load();
        let report = loaded.report;
        loaded.settings.unwrap_or_else(|| panic!("{:#?}", report.problems))
    }

    /// All problems as text, without the temporary folder; there must be an error among them.
    pub(crate) fn errors(&self) -> Vec<String> {
        let loaded = self.load();
        assert!(loaded.settings.is_none(), "loaded in spite of what is wrong");
        texts(self, &loaded.report, Severity::Error)
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        texts(self, &self.load().report, Severity::Warning)
    }
}

fn texts(conf: &Conf, report: &Report, severity: Severity) -> Vec<String> {
    let short = |text: String| {
        text.replace(&format!("{}/", conf.path("conf.d").display()), "")
            .replace(&shown(conf.dir.path()), "DIR")
    };
    report
        .problems
        .iter()
        .filter(|p| p.severity == severity)
        .map(|p| short(p.to_string()))
        .collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

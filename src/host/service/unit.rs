//! The text of a unit's drop-in: everything of a service that is ours to say, whatever the distribution's unit says.

use super::record::check_spec;
use crate::host::HostError;
use datastore_api::ServiceSpec;
use std::fmt::Write;

/// First version of systemd that can lengthen the pause between restarts.
const PAUSES_GROW_SINCE: u32 = 254;

/// Renders the drop-in for a systemd of this version.
pub(super) fn drop_in(spec: &ServiceSpec, version: u32) -> Result<String, HostError> {
    check_spec(spec)?;
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if spec.user.is_empty() || !spec.user.chars().all(simple) {
        return Err(HostError::Invalid(format!("{:?} cannot be the user of a unit", spec.user)));
    }
    let program = path(&spec.program)?;
    let mut command = quoted(&program);
    for arg in &spec.args {
        command.push(' ');
        command.push_str(&quoted(arg));
    }
    let log = path(&spec.log_file)?.replace('%', "%%");
    let pauses = if version >= PAUSES_GROW_SINCE {
        "RestartSteps=8\nRestartMaxDelaySec=30s\n"
    } else {
        ""
    };
    Ok(format!(
        "# Written by trove-guestagent; changes are lost.\n\
         [Unit]\n\
         # Never give up: the agent tells when it dies too often.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         # The agent asks the server itself whether it answers.\n\
         Type=exec\n\
         ExecStartPre=\n\
         ExecStart=\n\
         ExecStart={command}\n\
         ExecStartPost=\n\
         User={user}\n\
         Group=\n\
         LimitNOFILE={open_files}\n\
         Restart=always\n\
         RestartSec=200ms\n\
         {pauses}\
         KillMode=mixed\n\
         TimeoutStartSec=90s\n\
         # For the machine's shutdown; the agent has its own limit.\n\
         TimeoutStopSec=300s\n\
         StandardOutput=append:{log}\n\
         StandardError=append:{log}\n",
        user = spec.user,
        open_files = spec.open_files,
    ))
}

/// A unit for a server that no package brought one for.
pub(super) fn bare(spec: &ServiceSpec) -> String {
    format!(
        "# Written by trove-guestagent; the drop-in beside it says what is run.\n\
         [Unit]\n\
         Description={} (database of this guest)\n\
         After=network.target local-fs.target\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        spec.id.0
    )
}

fn path(path: &std::path::Path) -> Result<String, HostError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| HostError::Invalid(format!("{path:?} is not UTF-8")))
}

/// One word of a command line, whatever is in it.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            c if c.is_ascii_control() => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use datastore_api::ServiceId;

    fn spec() -> ServiceSpec {
        ServiceSpec {
            id: ServiceId("mariadb".to_owned()),
            program: "/usr/sbin/mariadbd".into(),
            args: vec![
                "--datadir=/var/lib/my sql/data".to_owned(),
                "a\"b\\c%d$e;'\n\té".to_owned(),
                String::new(),
            ],
            user: "mysql".to_owned(),
            log_file: "/var/log/100%.log".into(),
            open_files: 16384,
        }
    }

    #[test]
    fn the_command_is_quoted_for_systemd() {
        let text = drop_in(&spec(), 252).unwrap();
        let line = text.lines().find(|line| line.starts_with("ExecStart=\"")).unwrap();
        let wanted = r#"ExecStart="/usr/sbin/mariadbd" "--datadir=/var/lib/my sql/data" "a\"b\\c%%d$$e;'\x0a\x09é" """#;
        assert_eq!(line, wanted);
        assert!(text.contains("\nStandardError=append:/var/log/100%%.log\n"), "{text}");
        assert!(text.contains("\nUser=mysql\n") && text.contains("\nLimitNOFILE=16384\n"));
        assert!(!text.contains("RestartSteps") && drop_in(&spec(), 257).unwrap().contains("\nRestartSteps=8\n"));
    }

    #[test]
    fn nothing_is_smuggled_into_a_unit() {
        for user in ["", "a\nExecStart=/bin/sh", "a b", "%n"] {
            assert!(
                drop_in(
                    &ServiceSpec {
                        user: user.to_owned(),
                        ..spec()
                    },
                    252
                )
                .is_err(),
                "{user:?}"
            );
        }
        assert!(
            drop_in(
                &ServiceSpec {
                    log_file: "/x\nUser=root".into(),
                    ..spec()
                },
                252
            )
            .is_err()
        );
        assert!(
            drop_in(
                &ServiceSpec {
                    program: "mariadbd".into(),
                    ..spec()
                },
                252
            )
            .is_err()
        );
        assert!(
            drop_in(
                &ServiceSpec {
                    args: vec!["a\0b".to_owned()],
                    ..spec()
                },
                252
            )
            .is_err()
        );
    }
}

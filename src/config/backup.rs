//! The options of backups.

use super::reader::Reader;
use super::schema::{DEFAULT, OWN};
use super::settings::DatastoreSettings;
use crate::backup::log::{self, WhenFull};
use crate::backup::pipeline::{Adaptive, PipelineSettings};
use crate::backup::{self, Format, Second, VerifyPolicy};
use crate::storage::{self, Place, S3Settings, SwiftSettings};
use std::time::Duration;

pub(super) fn build(reader: &mut Reader<'_>, guest_id: &str, datastore: &DatastoreSettings) -> backup::Settings {
    let format = match reader.text(OWN, "backup_format").as_deref() {
        Some("upstream") => Format::Upstream,
        _ => Format::Native,
    };
    let key_file = reader.path(OWN, "backup_key_file");
    if key_file.is_some() && format == Format::Upstream {
        reader.error(
            OWN,
            "backup_key_file",
            "is set, and upstream's format cannot be encrypted: backup_format must be native",
        );
    }
    backup::Settings {
        guest_id: guest_id.to_owned(),
        mount_point: datastore.mount_point.clone(),
        storage: storage(reader),
        pipeline: pipeline(reader),
        key_file,
        format,
        verify: match reader.text(OWN, "backup_verify").as_deref() {
            Some("always") => VerifyPolicy::Always,
            Some("sampled") => VerifyPolicy::Sampled,
            _ => VerifyPolicy::Never,
        },
        second: match reader.text(OWN, "backup_second").as_deref() {
            Some("refuse") => Second::Refuse,
            _ => Second::Queue,
        },
        log: log(reader),
        seed_replicas: reader.text(OWN, "replica_seed").as_deref() != Some("direct"),
        progress_interval: reader.seconds(OWN, "backup_progress").unwrap_or(Duration::from_secs(10)),
        scratch: reader
            .path(OWN, "backup_scratch")
            .unwrap_or_else(|| datastore.mount_point.join("scratch")),
    }
}

/// How the log is shipped, if it is.
fn log(reader: &mut Reader<'_>) -> Option<log::Settings> {
    let is_on = reader.bool(OWN, "backup_log");
    let usual = log::Settings::default();
    let budget: u64 = reader.count(OWN, "backup_log_budget_mib");
    let when_full = match reader.text(OWN, "backup_log_when_full").as_deref() {
        Some("keep-log") => WhenFull::KeepLog,
        _ => WhenFull::DropLog,
    };
    is_on.then_some(log::Settings {
        budget: budget << 20,
        when_full,
        ..usual
    })
}

fn pipeline(reader: &mut Reader<'_>) -> PipelineSettings {
    let threads = reader
        .int(OWN, "backup_threads")
        .and_then(|threads| u32::try_from(threads).ok());
    let rate: u64 = reader.count(OWN, "backup_rate");
    let pressure: u32 = reader.count(OWN, "backup_pressure");
    let usual = PipelineSettings::default();
    PipelineSettings {
        level: reader.count::<i32>(OWN, "backup_level"),
        threads: threads.unwrap_or(usual.threads),
        rate: (rate > 0).then_some(rate),
        adaptive: (pressure > 0).then(|| Adaptive {
            limit: f64::from(pressure) / 100.0,
            ..Adaptive::default()
        }),
        read_back: reader.bool(OWN, "backup_read_back"),
        ..usual
    }
}

fn storage(reader: &mut Reader<'_>) -> storage::Settings {
    let usual = storage::Settings::default();
    let place = match reader.text(OWN, "backup_storage").as_deref().map(Place::parse) {
        None => usual.place,
        Some(Ok(place)) => place,
        Some(Err(problem)) => {
            reader.error(OWN, "backup_storage", problem);
            usual.place
        }
    };
    let part: usize = reader.count::<u32>(OWN, "backup_part_mib") as usize;
    storage::Settings {
        place,
        part_bytes: part << 20,
        limit: reader.seconds(OWN, "backup_part_limit").unwrap_or(usual.limit),
        folder_mounted: reader.bool(OWN, "backup_folder_mounted"),
        s3: S3Settings {
            endpoint: reader.text(OWN, "backup_s3_endpoint"),
            region: reader.text(OWN, "backup_s3_region").unwrap_or(usual.s3.region),
            credentials: reader.path(OWN, "backup_s3_credentials"),
            ca_file: reader.path(OWN, "backup_s3_ca_file"),
        },
        swift: SwiftSettings {
            container: reader
                .text(DEFAULT, "backup_swift_container")
                .unwrap_or(usual.swift.container),
            url: reader.text(DEFAULT, "swift_url"),
            insecure: reader.bool(DEFAULT, "swift_api_insecure"),
            region: reader
                .text("service_credentials", "region_name")
                .unwrap_or(usual.swift.region),
            auth_url: reader.text("service_credentials", "auth_url"),
            credentials: reader.path(OWN, "backup_swift_credentials"),
            upstream_key: reader.secret(DEFAULT, "backup_aes_cbc_key"),
        },
    }
}

//! A full disk: a clear error, nothing half recorded, and it works again when there is space.

use super::*;
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::path::{Path, PathBuf};

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        match mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=4m")) {
            Ok(()) => Some(Self(at.to_owned())),
            Err(e) => {
                eprintln!("SKIPPED: a file system cannot be mounted here ({e}); the full disk is not tested");
                None
            }
        }
    }

    fn fill(&self) {
        let block = vec![1u8; 4096];
        let mut ballast = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.join("ballast"))
            .unwrap();
        while std::io::Write::write_all(&mut ballast, &block).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

fn big(name: &str) -> Record {
    Record {
        args: json!({"config_contents": "x".repeat(40 << 10)}),
        ..call(name, "prepare")
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_goes_away_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&dir.path().join("small")) else {
        return;
    };
    let journal = Journal::open(&disk.0, None).unwrap();
    journal.accept(call("before", "restart")).await.unwrap();
    for round in 0..3 {
        disk.fill();
        let mut accepted = vec![];
        let refused = loop {
            let name = format!("big{round}-{}", accepted.len());
            match journal.accept(big(&name)).await {
                Ok(_) => accepted.push(name),
                Err(e) => break (name, e),
            }
        };
        assert!(matches!(refused.1, JournalError::Write { .. }), "{:?}", refused.1);
        let cause = std::error::Error::source(&refused.1).unwrap().to_string();
        assert!(cause.contains("No space left"), "{cause}");
        assert_eq!(journal.find(&id(&refused.0)).await.unwrap(), None, "nothing is half recorded");
        assert!(
            journal.find(&id("before")).await.unwrap().is_some(),
            "reading works on a full disk"
        );
        assert_eq!(journal.depth(), journal.unfinished().await.unwrap().len());

        disk.free();
        assert_eq!(
            journal.accept(big(&refused.0)).await.unwrap(),
            Admission::New,
            "it works again by itself"
        );
        accepted.push(refused.0);
        for name in accepted {
            journal.finish(&id(&name), &Outcome::Done(Value::Null)).await.unwrap();
            journal.answered(&id(&name)).await.unwrap();
        }
    }
    drop(journal);
    disk.fill();
    let journal = Journal::open(&disk.0, None).unwrap();
    assert!(!journal.opened_damaged());
    assert_eq!(journal.unfinished().await.unwrap().len(), 1, "a journal on a full disk opens");
    drop(journal);
}

#[tokio::test]
async fn a_large_request_without_space_does_not_take_the_small_ones_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&dir.path().join("small")) else {
        return;
    };
    let journal = Journal::open(&disk.0, None).unwrap();
    let mut huge = call("huge", "prepare");
    huge.args = json!({"config_contents": "x".repeat(6 << 20)});
    let (one, two, three) = (record("one", "restart"), record("two", "restart"), record("three", "restart"));
    let (a, b, c, d) = tokio::join!(
        journal.accept(one),
        journal.accept(two),
        journal.accept(huge),
        journal.accept(three)
    );
    assert!(a.is_ok() && b.is_ok() && d.is_ok(), "{a:?} {b:?} {d:?}");
    assert!(matches!(c, Err(JournalError::Write { .. })), "{c:?}");
    assert_eq!(names(&journal.unfinished().await.unwrap()), ["one", "two", "three"]);
    drop(journal);
}

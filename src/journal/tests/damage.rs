//! Damaged files, unknown formats, changed keys, secrets on disk.

use super::*;
use redb::{Database, TableDefinition};
use std::fs;
use std::path::Path;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

async fn filled(dir: &Path, key: Option<&Secret>) {
    let journal = Journal::open(dir, key).unwrap();
    journal.accept(call("open", "prepare")).await.unwrap();
    journal.accept(call("ended", "enable_root")).await.unwrap();
    let outcome = Outcome::Done(json!("s3cret-in-outcome"));
    journal.finish(&id("ended"), &outcome).await.unwrap();
}

fn set_meta(dir: &Path, values: &[(&str, u64)]) {
    let db = Database::open(dir.join("journal.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    for (key, value) in values {
        transaction.open_table(META).unwrap().insert(key, value).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_the_app_can_tell() {
    let clean = tempfile::tempdir().unwrap();
    filled(clean.path(), None).await;
    let bytes = fs::read(clean.path().join("journal.redb")).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no journal at all", b"hello world, this is text".to_vec()),
        ("the end is missing", bytes[..bytes.len() / 2].to_vec()),
        ("the header is zero", [vec![0; 4096], bytes[4096..].to_vec()].concat()),
        ("only the header is left", bytes[..4096].to_vec()),
        (
            "a page is zero",
            [bytes[..4096].to_vec(), vec![0; bytes.len() - 4096]].concat(),
        ),
    ];
    for (what, content) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal.redb"), &content).unwrap();
        let journal = Journal::open(dir.path(), None).unwrap();
        assert!(journal.opened_damaged(), "{what}");
        assert_eq!(
            journal.accept(record("new", "restart")).await.unwrap(),
            Admission::New,
            "{what}"
        );
        let aside = fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".damaged-"))
            .count();
        assert_eq!(aside, 1, "{what}");
        drop(journal);
        assert!(
            !Journal::open(dir.path(), None).unwrap().opened_damaged(),
            "{what}: only told once"
        );
    }
}

#[tokio::test]
async fn any_flipped_byte_is_survived_and_never_changes_what_is_read() {
    let clean = tempfile::tempdir().unwrap();
    filled(clean.path(), None).await;
    let bytes = fs::read(clean.path().join("journal.redb")).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut damaged = 0;
    for at in used.iter().step_by(used.len() / 60) {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(clean.path().join("journal.key"), dir.path().join("journal.key")).unwrap();
        let mut content = bytes.clone();
        content[*at] ^= 0x41;
        fs::write(dir.path().join("journal.redb"), &content).unwrap();
        let journal = match Journal::open(dir.path(), None) {
            Ok(journal) => journal,
            Err(JournalError::Format { .. }) => continue,
            Err(e) => panic!("byte {at}: {e}"),
        };
        if journal.opened_damaged() {
            damaged += 1;
        } else {
            assert_eq!(journal.unfinished().await.unwrap(), [call("open", "prepare")], "byte {at}");
        }
        journal.accept(record("new", "restart")).await.unwrap();
    }
    assert!(damaged > 0);
}

#[tokio::test]
async fn an_interrupted_making_is_not_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; 100 * 4096];
    bytes[9..320].fill(7);
    fs::write(dir.path().join("journal.redb"), &bytes).unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    assert!(!journal.opened_damaged());
    drop(journal);
    fs::write(dir.path().join("journal.redb"), b"").unwrap();
    assert!(!Journal::open(dir.path(), None).unwrap().opened_damaged());
}

#[tokio::test]
async fn damaged_files_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..6 {
        fs::write(dir.path().join("journal.redb"), b"not a journal").unwrap();
        assert!(Journal::open(dir.path(), None).unwrap().opened_damaged());
    }
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert!(files <= 6, "3 damaged ones, the journal, its key and lock: {files}");
}

#[tokio::test]
async fn one_release_back_and_forth_is_readable_and_other_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), None).await;
    set_meta(dir.path(), &[("format", 2), ("readable_from", 1)]);
    let journal = Journal::open(dir.path(), None).unwrap();
    assert_eq!(journal.unfinished().await.unwrap().len(), 1);
    drop(journal);
    set_meta(dir.path(), &[("format", 3), ("readable_from", 2)]);
    match Journal::open(dir.path(), None) {
        Err(JournalError::Format { found, .. }) => assert_eq!(found, 3),
        other => panic!("{other:?}"),
    }
    assert!(
        dir.path().join("journal.redb").exists(),
        "a journal of the future stays where it is"
    );
}

#[tokio::test]
async fn no_secret_is_on_disk_in_the_clear() {
    let key = Secret::from("instance-key".to_owned());
    for key in [None, Some(&key)] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), key).await;
        for file in fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            let content = fs::read(&path).unwrap();
            for word in [&b"s3cret"[..], b"ann", b"instance-key"] {
                assert!(
                    !content.windows(word.len()).any(|w| w == word),
                    "{path:?} holds {}",
                    String::from_utf8_lossy(word)
                );
            }
        }
    }
}

#[tokio::test]
async fn after_a_change_of_the_key_the_entry_is_kept_and_its_secrets_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Secret::from("old key".to_owned()), Secret::from("new key".to_owned()));
    filled(dir.path(), Some(&old)).await;
    let journal = Journal::open(dir.path(), Some(&new)).unwrap();
    assert!(!journal.opened_damaged());
    let open = journal.unfinished().await.unwrap().remove(0);
    assert!(open.is_sealed() && open.method == "prepare" && open.reply == call("open", "prepare").reply);
    assert!(journal.unanswered().await.unwrap()[0].is_sealed());
    assert!(matches!(journal.find(&id("open")).await, Err(JournalError::Sealed { .. })));
    assert!(matches!(
        journal.accept(call("ended", "enable_root")).await,
        Err(JournalError::Sealed { .. })
    ));
    journal
        .finish(&id("open"), &Outcome::Failed(json!({"message": "lost"})))
        .await
        .unwrap();
    journal.answered(&id("open")).await.unwrap();
    assert!(journal.unfinished().await.unwrap().is_empty());
    assert_eq!(journal.recent(10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_was_sealed_before_there_was_an_instance_key_opens_with_it() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), None).await;
    let key = Secret::from("instance-key".to_owned());
    let journal = Journal::open(dir.path(), Some(&key)).unwrap();
    assert_eq!(journal.unfinished().await.unwrap(), [call("open", "prepare")]);
    drop(journal);
    fs::write(dir.path().join("journal.key"), b"short").unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    assert!(journal.unfinished().await.unwrap()[0].is_sealed());
}

#[tokio::test]
async fn a_sealed_fact_is_not_in_the_clear_and_opens_with_its_key_and_name_only() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Secret::from("first".to_owned()), Secret::from("second".to_owned()));
    let text = b"s3cret-in-a-fact".to_vec();
    let journal = Journal::open(dir.path(), Some(&first)).unwrap();
    assert!(journal.get_sealed("pair").await.unwrap().is_none());
    journal.put_sealed("pair", b"older".to_vec()).await.unwrap();
    journal.put_sealed("pair", text.clone()).await.unwrap();
    assert_eq!(**journal.get_sealed("pair").await.unwrap().unwrap(), text);
    let raw = journal.get("pair").await.unwrap().unwrap();
    assert_ne!(raw, text);
    // What was sealed under one name is not taken under another, nor is what was never sealed.
    journal.put("other", raw).await.unwrap();
    journal.put("clear", b"x".to_vec()).await.unwrap();
    for key in ["other", "clear"] {
        let error = journal.get_sealed(key).await.unwrap_err();
        assert!(
            matches!(&error, JournalError::Sealed { id } if *id == format!("fact/{key}")),
            "{error}"
        );
    }
    let too_large = journal.put_sealed("pair", vec![0; MAX_FACT]).await;
    assert!(matches!(too_large, Err(JournalError::TooLarge { .. })));
    drop(journal);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"s3cret" || w == b"older\0"));
    }
    let journal = Journal::open(dir.path(), Some(&second)).unwrap();
    let error = journal.get_sealed("pair").await.unwrap_err();
    assert!(matches!(error, JournalError::Sealed { .. }), "{error}");
    drop(journal);
    let journal = Journal::open(dir.path(), Some(&first)).unwrap();
    assert_eq!(**journal.get_sealed("pair").await.unwrap().unwrap(), text);
    let written = format!("{:?}", Write::PutSealed("pair".to_owned(), text.into()));
    assert!(!written.contains("115"), "bytes in debug output: {written}");
}

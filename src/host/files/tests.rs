use super::*;
use crate::host::users;
use datastore_api::Owner;
use std::error::Error;
use std::os::unix::fs::{lchown, symlink};

fn mode(mode: u32) -> FileMode {
    FileMode { mode, owner: None }
}

fn nobody() -> Owner {
    Owner {
        user: "nobody".to_owned(),
    }
}

#[test]
fn a_file_is_replaced_only_when_it_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b\n.cnf");
    assert_eq!(write_atomic(&path, b"one", &mode(0o640)).unwrap(), Change::Done);
    assert_eq!(write_atomic(&path, b"one", &mode(0o640)).unwrap(), Change::Unchanged);
    assert_eq!(write_atomic(&path, b"one", &mode(0o600)).unwrap(), Change::Done);
    assert_eq!(write_atomic(&path, b"two", &mode(0o600)).unwrap(), Change::Done);
    assert_eq!(read(&path).unwrap().unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(list_dir(dir.path()).unwrap().unwrap(), ["a b\n.cnf"]);
    assert_eq!(remove(&path).unwrap(), Change::Done);
    assert_eq!(remove(&path).unwrap(), Change::Unchanged);
    assert_eq!(read(&path).unwrap(), None);
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    fs::write(&target, "keep").unwrap();
    symlink(&target, &link).unwrap();
    write_atomic(&link, b"keep", &mode(0o600)).unwrap();
    write_atomic(&link, b"new", &mode(0o600)).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"keep");
    assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn errors_name_the_path_and_keep_the_kind() {
    let error = write_atomic(Path::new("/proc/no-such/file"), b"", &mode(0o600)).unwrap_err();
    assert_eq!(error.to_string(), "could not create a file beside /proc/no-such/file");
    assert!(error.source().is_some());
    let error = write_atomic(Path::new("/sys/kernel/x"), b"", &mode(0o600)).unwrap_err();
    assert!(error.to_string().contains("/sys/kernel/x"), "{error}");
    assert!(write_atomic(Path::new("relative"), b"", &mode(0o600)).is_err());
    assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("/dev/zero"));
    assert!(read(Path::new("/tmp")).is_err());
    let no_user = FileMode {
        mode: 0o600,
        owner: Some(Owner { user: "nosuch".into() }),
    };
    let dir = tempfile::tempdir().unwrap();
    let error = write_atomic(&dir.path().join("x"), b"", &no_user).unwrap_err();
    assert!(error.to_string().contains("nosuch"), "{error}");
    assert!(list_dir(dir.path()).unwrap().unwrap().is_empty());
}

#[test]
fn a_folder_gets_its_mode_also_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    assert_eq!(make_dir(&path, &mode(0o750)).unwrap(), Change::Done);
    assert_eq!(make_dir(&path, &mode(0o750)).unwrap(), Change::Unchanged);
    assert_eq!(make_dir(&path, &mode(0o700)).unwrap(), Change::Done);
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(make_dir(&link, &mode(0o777)).is_err());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn a_tree_is_given_away_and_links_are_not_followed() {
    if rustix::process::geteuid().as_raw() != 0 {
        println!("SKIPPED: owners can be changed by root only");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub/sub")).unwrap();
    fs::write(tree.join("sub/file"), "").unwrap();
    symlink(&outside, tree.join("sub/link")).unwrap();
    symlink(dir.path(), tree.join("loop")).unwrap();
    assert_eq!(chown_tree(&tree, &nobody()).unwrap(), Change::Done);
    assert_eq!(chown_tree(&tree, &nobody()).unwrap(), Change::Unchanged);
    let uid = users::lookup("nobody").unwrap().uid;
    for path in ["", "sub", "sub/sub", "sub/file", "sub/link", "loop"] {
        assert_eq!(fs::symlink_metadata(tree.join(path)).unwrap().uid(), uid, "{path}");
    }
    assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    lchown(tree.join("sub/link"), Some(0), Some(0)).unwrap();
    assert_eq!(chown_tree(&tree, &nobody()).unwrap(), Change::Done);
    let owned = FileMode {
        mode: 0o600,
        owner: Some(nobody()),
    };
    assert_eq!(write_atomic(&tree.join("sub/file"), b"x", &owned).unwrap(), Change::Done);
    assert_eq!(write_atomic(&tree.join("sub/file"), b"x", &owned).unwrap(), Change::Unchanged);
    assert_eq!(fs::metadata(tree.join("sub/file")).unwrap().uid(), uid);
}

#[test]
fn a_folder_is_emptied_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, inside) = (dir.path().join("outside"), dir.path().join("inside"));
    fs::create_dir_all(inside.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "").unwrap();
    fs::write(inside.join("a/b/file"), "").unwrap();
    symlink(&outside, inside.join("a/link")).unwrap();
    assert_eq!(clear_dir(&inside).unwrap(), Change::Done);
    assert_eq!(clear_dir(&inside).unwrap(), Change::Unchanged);
    assert_eq!(clear_dir(&dir.path().join("none/at/all")).unwrap(), Change::Unchanged);
    assert_eq!(list_dir(&inside).unwrap().unwrap(), Vec::<String>::new());
    assert!(outside.join("keep").exists());
    symlink(&outside, inside.join("link")).unwrap();
    assert!(clear_dir(&inside.join("link")).is_err());
    assert!(outside.join("keep").exists());
}

#[test]
fn the_end_of_a_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    assert_eq!(read_tail(&path, 3).unwrap(), None);
    fs::write(&path, "abcdef").unwrap();
    assert_eq!(read_tail(&path, 3).unwrap().unwrap(), b"def");
    assert_eq!(read_tail(&path, 30).unwrap().unwrap(), b"abcdef");
    assert_eq!(read_tail(&path, 0).unwrap().unwrap(), b"");
}

//! A directory has one holder, which checks before each write that the directory still is its own.

use super::*;

fn take(dir: &Path) -> Hold {
    Hold::take(dir).expect("takes it")
}

#[test]
fn a_hold_ends_where_the_lock_is_another_file_and_begins_again_only_where_nobody_has_been() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    fs::create_dir(&dir).expect("makes");
    let hold = take(&dir);
    hold.keep().expect("its own");
    assert!(Hold::take(&dir).is_err(), "one at a time");

    fs::remove_dir_all(&dir).expect("removes");
    assert!(hold.keep().is_err() && !dir.exists(), "a directory is not made again");
    fs::create_dir(&dir).expect("makes");
    hold.keep().expect("nobody has been there");
    assert!(Hold::take(&dir).is_err(), "it is held again");

    fs::remove_file(dir.join(LOCK)).expect("removes");
    let other = take(&dir);
    for _ in 0..2 {
        let error = hold.keep().expect_err("another one's").to_string();
        assert!(error.contains("another broker"), "{error}");
        assert!(hold.confirm().is_err());
        // The other process ends, and what it left behind is still its own.
        other.release();
    }
    assert!(other.confirm().is_ok() && other.keep().is_err(), "a released hold is for reading only");
    take(&dir).keep().expect("the next process may have it");
}

#[test]
fn a_link_in_the_place_of_the_lock_is_not_the_lock() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    fs::create_dir(&dir).expect("makes");
    let hold = take(&dir);
    fs::rename(dir.join(LOCK), parent.path().join("moved")).expect("moves");
    std::os::unix::fs::symlink(parent.path().join("moved"), dir.join(LOCK)).expect("links");
    assert!(hold.keep().is_err());
}

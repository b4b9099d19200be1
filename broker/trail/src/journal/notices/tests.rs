//! A notice is reported once, whichever record does, and outlives a process that does not report it.

use std::fs;

use super::*;

fn missing(missing_records: u64) -> Notice {
    Notice { missing_records, ..Notice::default() }
}

fn policy() -> Reloads {
    Reloads { policy: 1, ..Reloads::default() }
}

/// What the next process reads, once the directory is no longer locked.
fn next(dir: &Path) -> io::Result<Notices> {
    found(fs::remove_file(dir.join("lock")))?;
    Notices::load(&Arc::new(Hold::take(dir)?))
}

fn load(dir: &Path) -> Arc<Notices> {
    Arc::new(next(dir).expect("loads"))
}

fn place(sequence: u64) -> Link {
    Link { sequence, ..Link::START }
}

#[test]
fn what_is_told_is_told_once_and_what_is_given_back_again() {
    let dir = tempfile::tempdir().expect("dir");
    let notices = load(dir.path());
    assert!(notices.take().is_none());
    notices.tell(Notice::default());
    assert!(notices.take().is_none(), "nothing became of the journal");
    notices.tell(missing(2));
    notices.note_reloads(policy());
    let taken = notices.take().expect("waits");
    assert_eq!((taken.untold().journal(), taken.untold().reloads()), (Some(missing(2)), Some(policy())));
    notices.tell(missing(3));
    let other = notices.take().expect("another one");
    assert_eq!((other.untold().journal(), other.untold().reloads()), (Some(missing(3)), None));
    assert_ne!(taken.untold().id, other.untold().id);
    taken.give_back();
    other.told();
    let again = notices.take().expect("again");
    assert_eq!(again.untold().journal, missing(2));
    again.told();
    assert!(notices.take().is_none() && notices.untold() == 0);
}

#[test]
fn what_may_have_been_told_is_for_the_brokers_own_record() {
    let dir = tempfile::tempdir().expect("dir");
    let notices = load(dir.path());
    notices.tell(missing(2));
    drop(notices.take().expect("waits"));
    assert!(notices.take().is_none() && notices.is_uncertain());
    let taken = notices.take_for_own_record().expect("for the broker");
    assert!(taken.may_be_told());
    taken.told();
    assert_eq!(notices.untold(), 0);
}

#[test]
fn it_outlives_the_process_until_it_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    let notices = load(dir.path());
    notices.tell_missing(place(30), 20).expect("notes");
    notices.tell_missing(place(30), 20).expect("notes it once");
    let id = notices.take().map(|taken| taken.untold().id);
    // Killed here, whether the record was written or not.
    let notices = load(dir.path());
    notices.tell_missing(place(30), 20).expect("known");
    let taken = notices.take_for_own_record().expect("it is to be told");
    assert_eq!((Some(taken.untold().id), taken.untold().journal), (id, missing(20)));
    assert!(notices.take_for_own_record().is_none(), "once");
    taken.told();
    notices.save().expect("notes");
    let notices = load(dir.path());
    assert_eq!(notices.untold(), 0);
    notices.tell_missing(place(40), 5).expect("notes");
    assert_eq!(Notices::read(dir.path()).expect("reads").len(), 1);
}

#[test]
fn a_cut_that_is_made_again_is_told_once_and_the_next_one_again() {
    let dir = tempfile::tempdir().expect("dir");
    let cut = |at| Cut { flaw: Flaw::Broken, at, bytes: 7 };
    let damaged = |notices: &Arc<Notices>| {
        let Some(taken) = notices.take_for_own_record() else { return 0 };
        let damaged = taken.untold().journal.damaged_bytes;
        taken.told();
        damaged
    };
    load(dir.path()).tell_cut(3, &cut(100)).expect("notes");
    // Killed before the file was cut.
    let notices = load(dir.path());
    notices.tell_cut(3, &cut(100)).expect("known");
    assert_eq!(damaged(&notices), 7);
    notices.is_whole(3);
    notices.tell_cut(3, &cut(100)).expect("notes");
    notices.tell_cut(4, &cut(100)).expect("notes");
    assert_eq!(damaged(&load(dir.path())), 14);
    assert_eq!(damaged(&notices), 14);
}

#[test]
fn what_cannot_be_noted_is_not_forgotten() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    fs::create_dir(&dir).expect("makes");
    let notices = load(&dir);
    fs::remove_dir_all(&dir).expect("removes");
    notices.tell_missing(place(30), 20).expect_err("nowhere to note it");
    notices.tell_missing(place(30), 20).expect_err("still");
    notices.tell_cut(1, &Cut { flaw: Flaw::Torn, at: 9, bytes: 1 }).expect("no reply went out for it");
    fs::create_dir(&dir).expect("makes");
    notices.tell_missing(place(30), 20).expect("notes it now");
    let noted = Notices::read(&dir).expect("reads");
    assert_eq!(noted[0].journal, Notice { missing_records: 20, torn_bytes: 1, ..Notice::default() });
    fs::write(dir.join(Notices::FILE), "{}").expect("writes");
    let error = next(&dir).err().expect("refused").to_string();
    assert!(error.contains("notices.json") && error.contains("move it away"), "{error}");
}

#[test]
fn there_are_never_many() {
    let dir = tempfile::tempdir().expect("dir");
    let notices = load(dir.path());
    for _ in 0..100 {
        notices.tell(missing(1));
        drop(notices.take());
    }
    assert_eq!(notices.untold(), MAX_ENTRIES);
    let mut told = 0;
    while let Some(taken) = notices.take_for_own_record() {
        told += taken.untold().journal.missing_records;
        taken.told();
    }
    assert_eq!(told, 100);
}

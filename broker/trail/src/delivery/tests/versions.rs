//! Upgrades and downgrades between two format versions, by two builds of this program: a trail in a store, with a journal that is not
//! fully delivered, is taken over by the other build, or refused with a reason.
//!
//! `KEY_BROKER_FORMATS` names the folder for both, and `.ci/formats` runs the builds one after the other. Without it, each run is alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use key_broker_core::clock::Clock;
use spki::der::pem::{LineEnding, encode_string};
use time::OffsetDateTime;

use super::config_of_the_trail;
use super::site::HandClock;
use crate::announcer::Announcer;
use crate::delivery::Trail;
use crate::delivery::setup::{Means, SetupError, state_in_journal};
use crate::format_version::FORMAT_VERSION;
use crate::journal::{Durability, Journal, JournalConfig, JournalThread};
use crate::names::TrailNames;
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::signature::Signer;
use crate::state::State;
use crate::store::Store;
use crate::store::directory::DirectoryStore;
use crate::verify::forge::{START, caller, names, refusal};
use crate::verify::{FindingKind, Report, TrailState, Verdict, VerifyOptions, verify};

/// The folder that one broker has left.
struct Place(PathBuf);

impl Place {
    fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(DirectoryStore::new(&self.0.join("store"), "logs"))
    }

    fn signer(&self) -> Signer {
        let file = self.0.join("signing.pem");
        if !file.exists() {
            let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
            let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("encodes");
            let pem = encode_string("PRIVATE KEY", LineEnding::LF, pkcs8.as_ref()).expect("encodes");
            fs::write(&file, pem).expect("writes");
        }
        Signer::from_pem(&fs::read(file).expect("reads")).expect("a key")
    }

    /// Copies it for another broker to continue.
    fn copy(&self, to: &Path) -> Self {
        for file in files_below(&self.0) {
            let target = to.join(file.strip_prefix(&self.0).expect("below"));
            fs::create_dir_all(target.parent().expect("a folder")).expect("makes");
            fs::copy(&file, target).expect("copies");
        }
        Self(to.to_owned())
    }

    /// Starts a broker there, some hours after the first one.
    fn start(&self, hours: i64) -> Result<(Trail, Announcer, JournalThread), String> {
        let now = START + time::Duration::hours(hours);
        let clock: Arc<dyn Clock> = Arc::new(HandClock(Mutex::new(now)));
        let config = JournalConfig::new(self.journal(), Durability::Write, Duration::from_secs(10));
        let opened = Journal::open(&config, Arc::clone(&clock)).map_err(|error| error.to_string());
        let (journal, thread) = opened?;
        let (caller, origin, journal_dir) = (Arc::new(caller()), Origin::default(), self.journal());
        let announcer = Announcer { journal, journal_dir, caller, origin, clock };
        let config = config_of_the_trail();
        let state =
            state_in_journal(&config, &announcer, None).map_err(|error: SetupError| error.to_string())?;
        let names = TrailNames { trail: state.trail.clone(), ..names() };
        let means = Means { names, store: self.store(), signer: self.signer(), encryption: None };
        Ok((Trail::resume(&config, means, announcer.clone(), state), announcer, thread))
    }

    /// The trail's name, whatever the version of its state.
    fn trail(&self) -> String {
        let noted = fs::read(self.journal().join("trail.json")).expect("reads");
        let noted: serde_json::Value = serde_json::from_slice(&noted).expect("JSON");
        noted["trail"].as_str().expect("a name").to_owned()
    }

    async fn verified(&self, with_journal: bool) -> Report {
        let names = TrailNames { trail: self.trail(), ..names() };
        let keys = vec![self.signer().public_key().clone()];
        let journal_dir = with_journal.then(|| self.journal());
        let options = VerifyOptions { keys, journal_dir, ..VerifyOptions::default() };
        verify(&TrailReader::new(self.store(), names, None), &options, &mut |_| {}).await
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

async fn call(announcer: &Announcer, times: usize, at: OffsetDateTime) {
    for _ in 0..times {
        let line = format!("{}\n", refusal(at)).into_bytes();
        announcer.journal.append(line).wait().await.expect("commits");
    }
}

/// What a killed broker of this version leaves: four records in a digest, three only in the journal.
async fn leave(dir: PathBuf) -> Place {
    fs::create_dir_all(&dir).expect("makes");
    let place = Place(dir);
    let (mut trail, announcer, thread) = place.start(0).expect("a new one starts");
    trail.digest().await.expect("opens");
    call(&announcer, 4, START).await;
    trail.deliver().await.expect("delivers");
    trail.digest().await.expect("signs");
    call(&announcer, 3, START).await;
    drop(trail);
    thread.close().expect("no defect");
    place
}

/// This version and the previous one are taken over: the trail is continued, closes, is sound, and lacks nothing.
async fn is_taken_over(left: &Place) {
    let report = left.verified(true).await;
    assert_eq!((report.verdict, report.records), (Verdict::Sound, 7), "{report:?}");
    let dir = tempfile::tempdir().expect("a folder");
    let place = left.copy(dir.path());
    let (trail, announcer, thread) = place.start(2).expect("takes it over");
    call(&announcer, 2, START + time::Duration::hours(2)).await;
    trail.finish(Duration::from_secs(20)).await;
    thread.close().expect("no defect");
    let report = place.verified(true).await;
    assert_eq!((report.verdict, report.state), (Verdict::Sound, Some(TrailState::Closed)), "{report:?}");
    assert_eq!(report.records, 4 + 3 + 2 + 1, "with the broker's end");
    let noted = State::load(&place.journal()).expect("reads").expect("is there");
    assert_eq!(noted.trail, left.trail());
}

/// A broker refuses a later version with an error that names it, and leaves everything as it is; verification cannot tell.
async fn is_refused(left: &Place, version: u32) {
    let dir = tempfile::tempdir().expect("a folder");
    let place = left.copy(dir.path());
    let contents = || {
        let mut files = files_below(&place.0);
        files.retain(|file| file.file_name().is_some_and(|name| name != "lock"));
        files.sort();
        files.into_iter().map(|file| (fs::read(&file).expect("reads"), file)).collect::<Vec<_>>()
    };
    let before = contents();
    let refused = place.start(2).err().expect("refused");
    assert!(refused.contains(&format!("version {version}")), "{refused}");
    let report = place.verified(false).await;
    let kinds: Vec<FindingKind> = report.counts.keys().copied().collect();
    assert_eq!((report.verdict, kinds), (Verdict::CannotTell, vec![FindingKind::NewerFormat]), "{report:?}");
    assert!(report.findings[0].words.contains(&format!("version {version}")), "{report:?}");
    assert!(contents() == before, "it is left as it is");
}

/// A rolling upgrade and its reversal: each build takes over its own version and the previous one, and refuses later ones.
#[tokio::test]
async fn up_and_down_between_format_versions() {
    let own = tempfile::tempdir().expect("a folder");
    let formats = std::env::var_os("KEY_BROKER_FORMATS").map_or_else(|| own.path().to_owned(), PathBuf::from);
    let of = |version: u32| formats.join(version.to_string());
    if !of(FORMAT_VERSION).exists() {
        leave(of(FORMAT_VERSION)).await;
    }
    let mut seen = 0;
    for version in FORMAT_VERSION - 1..=FORMAT_VERSION + 1 {
        if !of(version).exists() {
            continue;
        }
        seen += 1;
        let left = Place(of(version));
        if version > FORMAT_VERSION { is_refused(&left, version).await } else { is_taken_over(&left).await }
    }
    println!("format version {FORMAT_VERSION}: {seen} tried");
}

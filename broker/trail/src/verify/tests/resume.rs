//! A verification with interruptions ends with the result of one without, and what was verified before must still be there.

use super::*;

/// A trail of this many hours, each with a data key that is used twice.
async fn of_hours(hours: i64) -> MemoryStore {
    let hour = |n: i64| {
        let mint = Mint::new(u128::try_from(n).expect("few") + 1, START + Duration::hours(n));
        vec![vec![mint.record(), mint.draw(1).record(), mint.draw(2).record()]]
    };
    Forge { digests: (0..hours).map(hour).collect(), ..Forge::default() }.store().await
}

fn options(resume: Option<ResumePoint>) -> VerifyOptions {
    let from = resume.as_ref().map(ResumePoint::end);
    VerifyOptions { keys: vec![signer().public_key().clone()], from, resume, ..VerifyOptions::default() }
}

/// Verifies, and returns the points at which it could have stopped, each with the number of digests read by then.
async fn points(store: &MemoryStore, options: VerifyOptions) -> (Report, Vec<(u64, ResumePoint)>) {
    let reader = TrailReader::new(std::sync::Arc::new(store.clone()), names(), None);
    let mut points = Vec::new();
    let report = verify(&reader, &options, &mut |done| {
        if let Some(point) = &done.resume {
            points.push((done.digests, point.clone()));
        }
    })
    .await;
    points.dedup();
    (report, points)
}

#[tokio::test]
async fn wherever_it_is_stopped_it_ends_the_same() {
    let store = of_hours(60).await;
    let (whole, points) = points(&store, options(None)).await;
    assert_eq!((whole.verdict, whole.records), (Verdict::Sound, 180));
    assert_eq!(points.len(), 35, "every digest that has a day and an hour behind it");
    for (passed, (_, point)) in (1..).zip(points) {
        assert_eq!(point.end(), START + Duration::hours(passed));
        let told = serde_json::to_string(&point).expect("JSON");
        let point = serde_json::from_str(&told).expect("the same");
        let resumed = verified_with(&store, options(Some(point))).await;
        assert_eq!(resumed.verdict, Verdict::Sound, "{resumed:?}");
        let counts = |report: &Report| (report.digests, report.log_files, report.records, report.kms_records);
        assert_eq!(counts(&resumed), counts(&whole));
        assert_eq!((resumed.from, resumed.to), (whole.from, whole.to));
        assert_eq!(resumed.newest_signature, whole.newest_signature);
    }
}

#[tokio::test]
async fn what_was_verified_before_has_to_be_there_still() {
    let store = of_hours(40).await;
    let (_, points) = points(&store, options(None)).await;
    let (_, point) = points.last().expect("one").clone();
    let gone = store.copy();
    gone.with(|objects| objects.remove(&point.digest));
    let report = verified_with(&gone, options(Some(point.clone()))).await;
    assert_eq!(report.verdict, Verdict::Unsound);
    let other = ResumePoint { hash: "0".repeat(64), ..point };
    let report = verified_with(&store, options(Some(other))).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unsound, vec![FindingKind::NewestMissing]));
}

/// After a fault no point is noted, so that the fault is found again.
#[tokio::test]
async fn what_is_wrong_is_found_again() {
    let store = of_hours(60).await;
    let bad = store.keys().into_iter().filter(|key| !key.contains("Digest")).nth(40).expect("one");
    store.with(|objects| objects.remove(&bad));
    let (report, points) = points(&store, options(None)).await;
    assert_eq!(report.verdict, Verdict::Unsound);
    let (read, point) = points.last().expect("one").clone();
    assert!(read <= 41, "{read}");
    let report = verified_with(&store, options(Some(point))).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unsound, vec![FindingKind::LogFileMissing]));
}

/// Among many trails, one that has grown since it was found sound is read from a day before its end, and judged as a whole.
#[tokio::test]
async fn a_trail_that_has_grown_is_judged_as_a_whole() {
    let store = of_hours(60).await;
    let before = store.copy();
    before.with(|objects| {
        let digests: Vec<String> = objects.keys().filter(|key| key.contains("Digest")).cloned().collect();
        digests[50..].iter().for_each(|key| drop(objects.remove(key)));
    });
    let all = async |store: &MemoryStore, earlier: Vec<PassedTrail>, counts_uses: bool| {
        let reader = TrailReader::new(std::sync::Arc::new(store.clone()), names(), None);
        let options = VerifyOptions { counts_uses, ..options(None) };
        let (mut reports, mut later) = (Vec::new(), Vec::new());
        verify_all(&reader, "*", &options, 4, earlier, &mut |_, report, _, passed| {
            reports.push(report.clone());
            later.extend(passed);
        })
        .await;
        (reports.remove(0), later)
    };
    for counts_uses in [false, true] {
        let (whole, _) = all(&store, Vec::new(), counts_uses).await;
        let (report, passed) = all(&before, Vec::new(), counts_uses).await;
        assert_eq!((report.verdict, report.digests, passed.len()), (Verdict::Sound, 50, 1));
        let (resumed, later) = all(&store, passed, counts_uses).await;
        assert_eq!(later.len(), 1);
        // Data keys in use across digests are counted twice in the day that is read again.
        assert_eq!(Report { keys_used: whole.keys_used, ..resumed }, whole);
    }
}

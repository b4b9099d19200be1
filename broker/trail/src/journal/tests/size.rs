//! No file exceeds its bound, and no log file is longer than its journal file, in whatever order calls come.

use proptest::prelude::*;

use super::*;
use crate::log_file;

/// Writes the calls of each step at once, given the lengths of their records.
async fn write(most: u64, steps: &[Vec<Vec<usize>>]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().expect("dir");
    let (journal, thread) =
        open(&JournalConfig { max_segment_bytes: most, ..config(dir.path()) }).expect("opens");
    let mut written = 0;
    for calls in steps {
        let commits: Vec<_> = calls
            .iter()
            .map(|lengths| {
                written += lengths.len();
                let record = |length: &usize| {
                    format!("{{\"eventTime\":\"2026\",\"x\":\"{}\"}}\n", "x".repeat(*length))
                };
                journal.append(lengths.iter().map(record).collect::<String>().into_bytes())
            })
            .collect();
        for commit in commits {
            commit.wait().await.expect("commits");
        }
    }
    thread.close().expect("no defect");
    prop_assert_eq!(records(dir.path()).len(), written);
    for file in files(dir.path()).expect("files") {
        let bytes = fs::metadata(&file.path).expect("is there").len();
        prop_assert!(bytes <= most, "{} bytes, not {} at most", bytes, most);
        let Some(contents) = log_file::build(&file.path, u64::MAX).expect("reads") else { continue };
        let mut json = Vec::new();
        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*contents.bytes), &mut json).expect("gzip");
        prop_assert!((json.len() as u64) < bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_file_is_longer_than_it_may_be(
        steps in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(0..2_000_usize, 1..4), 1..30),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(write(10_000, &steps))?;
    }
}

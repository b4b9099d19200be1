//! What a verdict needs from the trails and their records.

use key_broker_trail::record::ReadRecord;
use key_broker_trail::{Coverage, records};
use time::{Duration, OffsetDateTime};

use super::super::Failure;
use super::super::log_files::read;
use super::super::output::plain;
use super::super::progress::Progress;
use super::super::reconcile::reader_records::ReaderRecords;
use super::super::source::Source;
use super::judgement::{Evidence, Reason, Standing};
use super::records::{ReadTrail, Records};
use super::state::Sighting;

/// What was found in a run.
pub(super) struct Found<'a> {
    pub(super) coverage: &'a Coverage,
    pub(super) records: &'a Records,
    pub(super) readers: &'a ReaderRecords,
    /// Whether S3 stores the trails, and may encrypt them itself.
    pub(super) is_in_s3: bool,
    pub(super) skew: Duration,
    pub(super) now: OffsetDateTime,
}

impl Evidence for Found<'_> {
    fn record_of(&self, request_id: &str) -> Option<(String, bool)> {
        self.records.record_of(request_id)
    }

    fn of_the_trail(&self, key: &str, sighting: &Sighting) -> Option<&'static str> {
        if !self.records.trail_keys.contains(key) {
            return None;
        }
        let id = &sighting.request_id;
        match &*sighting.operation {
            "Sign" if self.coverage.closing_signs.contains(id) => Some("the signature of a closing digest"),
            "GenerateDataKey" if self.coverage.data_keys.contains(id) => Some("the data key of a log file"),
            "Decrypt" if self.readers.have_request(id) => Some("a reader's, by the reader's own records"),
            "GenerateDataKey" | "Decrypt" if self.is_in_s3 => Some("S3's, perhaps, which stores the trail"),
            _ => None,
        }
    }

    fn standings(&self, at: OffsetDateTime) -> Vec<Standing> {
        let of = |trail: &key_broker_trail::CoveredTrail| Standing {
            trail: trail.name.clone(),
            place: trail.place.clone(),
            vouching: trail.vouching(at, self.skew, self.now),
        };
        self.coverage.trails.iter().map(of).collect()
    }

    fn troubles(&self, _key: &str, sighting: &Sighting) -> Vec<Reason> {
        self.records.troubles(&sighting.request_id).collect()
    }
}

/// Reads the log files of all trails, each trail's in its order.
pub(super) async fn read_all(
    source: &Source,
    coverage: &Coverage,
    found: &mut Records,
) -> Result<(), Failure> {
    let (mut progress, mut done) = (Progress::new(), 0);
    let all: usize = coverage.trails.iter().map(|trail| trail.files.len()).sum();
    for trail in &coverage.trails {
        let of = ReadTrail {
            name: &trail.name,
            place: trail.place.as_deref(),
            is_from_its_start: trail.is_from_its_start,
        };
        for file in &trail.files {
            progress.tell(|| format!("{done} of {all} log files"));
            done += 1;
            let Some(json) = read(source, file).await? else {
                found.leave_out(&of, file.times);
                continue;
            };
            for record in records(&json) {
                let record = record.map_err(|malformed| malformed.to_string());
                let parsed =
                    record.and_then(|json| ReadRecord::parse(json).map_err(|error| error.to_string()));
                let record = parsed.map_err(|why| {
                    Failure::Unavailable(format!(
                        "{}: {why}: see `key-broker audit verify`",
                        plain(file.key())
                    ))
                })?;
                found.add(&of, &record);
            }
        }
    }
    found.end();
    Ok(())
}

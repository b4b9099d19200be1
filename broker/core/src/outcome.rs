//! How a call ended.

/// How a call ended, in the words of the activity record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// Answered.
    Allowed,
    /// Policy said no.
    Denied,
    /// The request was malformed.
    Rejected,
    /// There were too many.
    Throttled,
    /// KMS or the broker could not.
    Failed,
    /// The caller went away.
    Aborted,
}

impl Outcome {
    /// The word in records and on spans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::Denied => "Denied",
            Self::Rejected => "Rejected",
            Self::Throttled => "Throttled",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
        }
    }
}

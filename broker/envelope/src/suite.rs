//! The supported algorithm suites (algorithm-suites.md). Others are refused by number.

/// The algorithm suite of a message: AES-256-GCM under a key that HKDF makes of a data key of 32 bytes. The suites without key
/// commitment are of message format 1, the others of format 2.
///
/// Which of them to take is the caller's decision. Without commitment, whoever makes a message can make it open to different
/// plaintexts under different data keys. A signature says that the message was sealed by somebody who was allowed to encrypt under
/// its context, not only to decrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// 0x0478: HKDF-SHA512, key commitment. The one that is written.
    Committed,
    /// 0x0578: the same, signed (ECDSA, P-384, SHA-384). What the SDKs write by default.
    CommittedSigned,
    /// 0x0178: HKDF-SHA256.
    Uncommitted,
    /// 0x0378: HKDF-SHA384, signed (ECDSA, P-384, SHA-384). What the SDKs wrote by default before version 2.
    UncommittedSigned,
}

impl Suite {
    /// Its number.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Committed => 0x0478,
            Self::CommittedSigned => 0x0578,
            Self::Uncommitted => 0x0178,
            Self::UncommittedSigned => 0x0378,
        }
    }

    /// Whether its messages open under one data key only.
    #[must_use]
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed | Self::CommittedSigned)
    }

    /// Whether its messages end with a signature.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::CommittedSigned | Self::UncommittedSigned)
    }

    pub(crate) fn of(id: u16) -> Option<Self> {
        let all = [Self::Committed, Self::CommittedSigned, Self::Uncommitted, Self::UncommittedSigned];
        all.into_iter().find(|suite| suite.id() == id)
    }
}

//! The timestamps of records and digests: `YYYY-MM-DDTHH:MM:SSZ`.

use time::{Date, Month, OffsetDateTime, UtcOffset};

/// Formats a time as records and digests have it.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "nothing can fail")]
pub fn record_time(at: OffsetDateTime) -> String {
    std::str::from_utf8(&digits(at.to_offset(UtcOffset::UTC))).expect("digits are ASCII").to_owned()
}

/// Parses a time in that form and no other.
pub(crate) fn parse_record_time(text: &str) -> Option<OffsetDateTime> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if signs.iter().any(|(at, sign)| bytes[*at] != *sign) {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_i32, |n, b| b.is_ascii_digit().then(|| n * 10 + i32::from(b - b'0')))
    };
    let small = |from: usize| number(from, from + 2).and_then(|n| u8::try_from(n).ok());
    let date = Date::from_calendar_date(number(0, 4)?, Month::try_from(small(5)?).ok()?, small(8)?).ok()?;
    Some(date.with_hms(small(11)?, small(14)?, small(17)?).ok()?.assume_utc())
}

/// Written by hand, since each record has three times, and `time` interprets a format description each time.
pub(super) fn digits(at: OffsetDateTime) -> [u8; 20] {
    let mut text = *b"0000-00-00T00:00:00Z";
    let mut put = |place: usize, number: u32| {
        for (place, unit) in [(place, 10), (place + 1, 1)] {
            text[place] = b'0' + u8::try_from(number / unit % 10).unwrap_or_default();
        }
    };
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    // `time` allows years up to 9999, and none here is negative.
    let year = year.unsigned_abs();
    put(0, year / 100);
    put(2, year);
    put(5, u8::from(month).into());
    put(8, day.into());
    put(11, hour.into());
    put(14, minute.into());
    put(17, second.into());
    text
}

/// A field with a time.
pub(crate) mod moment {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::super::Text;

    pub(crate) fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = super::digits(*at);
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }

    /// Accepts any form of RFC 3339, since AWS's own records are not checked here. Where the form matters, the record is written again and
    /// compared.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let text = Text::deserialize(deserializer)?;
        super::parse_record_time(&text)
            .map_or_else(|| OffsetDateTime::parse(&text, &Rfc3339), Ok)
            .map_err(serde::de::Error::custom)
    }
}

/// An optional field with a time, accepted only in the form of records.
pub(crate) mod optional_moment {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use time::OffsetDateTime;

    use super::super::Text;

    #[expect(clippy::ref_option, reason = "serde passes the field as it is")]
    pub(crate) fn serialize<S: Serializer>(
        at: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::moment::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let Some(text) = Option::<Text<'de>>::deserialize(deserializer)? else { return Ok(None) };
        let at = super::parse_record_time(&text);
        at.map(Some).ok_or_else(|| serde::de::Error::custom("not YYYY-MM-DDTHH:MM:SSZ"))
    }
}

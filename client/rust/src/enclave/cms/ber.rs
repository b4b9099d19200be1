//! Just enough BER (ITU-T X.690) to read what KMS writes: definite and indefinite lengths, one-byte tags.
//!
//! Nothing here recurses: the nesting of the caller's calls limits the depth that can be read.

/// What was expected at a place where the message has something else, or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BerError(pub &'static str);

/// Reads the values of one level, in order.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    end: ElementEnd,
}

enum Length {
    Bytes(usize),
    Indefinite,
}

/// How one knows that a level is over.
#[derive(Clone, Copy)]
enum ElementEnd {
    /// Its length was given: it is over when nothing is left.
    OfBytes,
    /// Its length was not given: two zero bytes follow it (X.690 8.1.5).
    Mark,
}

impl<'a> Reader<'a> {
    /// Reads `message`; [`end`](Self::end) then refuses what stands behind it.
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, end: ElementEnd::OfBytes }
    }

    /// The content of the next value, which must have `tag` and the primitive form.
    pub(super) fn primitive(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], BerError> {
        match self.head(tag) {
            Some(Length::Bytes(length)) => self.take(length).ok_or(BerError(what)),
            Some(Length::Indefinite) | None => Err(BerError(what)),
        }
    }

    /// What `read` makes of the inside of the next value, which must have `tag` and be read to its end.
    pub(super) fn constructed<T>(
        &mut self,
        tag: u8,
        what: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, BerError>,
    ) -> Result<T, BerError> {
        match self.head(tag).ok_or(BerError(what))? {
            Length::Bytes(length) => {
                let mut inside = Self::new(self.take(length).ok_or(BerError(what))?);
                let value = read(&mut inside)?;
                inside.end(what)?;
                Ok(value)
            }
            Length::Indefinite => {
                let mut inside = Self { rest: self.rest, end: ElementEnd::Mark };
                let value = read(&mut inside)?;
                self.rest = inside.rest.strip_prefix(MARK).ok_or(BerError(what))?;
                Ok(value)
            }
        }
    }

    /// Whether the next value has `tag`.
    pub(super) fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// Whether no value is left on this level.
    pub(super) fn is_at_end(&self) -> bool {
        match self.end {
            ElementEnd::OfBytes => self.rest.is_empty(),
            ElementEnd::Mark => self.rest.starts_with(MARK),
        }
    }

    /// Refuses another value on this level.
    pub(super) fn end(&self, what: &'static str) -> Result<(), BerError> {
        if self.is_at_end() { Ok(()) } else { Err(BerError(what)) }
    }

    /// The length behind `tag`. Only the constructed form has the indefinite one (X.690 8.1.3.2).
    fn head(&mut self, tag: u8) -> Option<Length> {
        let (&[first, second], rest) = self.rest.split_first_chunk()?;
        if first != tag {
            return None;
        }
        self.rest = rest;
        match second {
            short @ ..0x80 => Some(Length::Bytes(short.into())),
            0x80 => (tag & CONSTRUCTED != 0).then_some(Length::Indefinite),
            long => {
                let count = usize::from(long & 0x7f);
                let bytes = self.take(count).filter(|bytes| bytes.len() <= MAX_LENGTH_BYTES)?;
                Some(Length::Bytes(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))))
            }
        }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// The bit of a tag that says that values are inside (X.690 8.1.2.5).
pub(super) const CONSTRUCTED: u8 = 0x20;
/// What ends a value of indefinite length.
const MARK: &[u8] = &[0, 0];
/// Three bytes of length reach far beyond the largest message that is read.
const MAX_LENGTH_BYTES: usize = 3;

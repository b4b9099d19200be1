//! Encrypts a message, frame by frame.

use std::io::{self, Write};

use key_broker_core::{EncryptionContext, Plaintext};
use zeroize::Zeroizing;

use crate::error::SealError;
use crate::format::{FRAME_LENGTH, MessageId, TAG_BYTES};
use crate::frames::{
    HEADER_IV, LAST_FRAME, LAST_HEAD, LAST_OVERHEAD, Place, REGULAR_HEAD, REGULAR_OVERHEAD, aad, iv,
};
use crate::header::{self, EncryptedDataKey, HeaderFacts};
use crate::keys::MessageKeys;
use crate::suite::Suite;

/// A writer that encrypts, and passes the message on in frames of 4 KiB. The message is complete only after [`Sealer::finish`]; otherwise
/// it cannot be decrypted.
///
/// `flush` flushes the writer behind it; up to a frame of plaintext stays here until more is written or it is finished. After an
/// error the message is lost: every later call fails.
#[must_use = "a message is whole only when it is finished"]
pub struct Sealer<W: Write> {
    writer: W,
    frames: Frames,
    facts: HeaderFacts,
    /// The plaintext of the frame to come, in what becomes the frame: there is room for its head. Not allocated before the first write.
    frame: Zeroizing<Vec<u8>>,
    /// How many bytes were written.
    written: u64,
    broken: bool,
}

/// Makes frames of plaintext.
struct Frames {
    keys: MessageKeys,
    message_id: MessageId,
    frame_length: usize,
    /// The number of the frame to come.
    sequence: u32,
}

impl<W: Write> Sealer<W> {
    /// Writes the header, with a random id, which gives the message a key of its own. `data_key` has 32 bytes; `encrypted` is the same data
    /// key, encrypted under `context`.
    pub fn new(
        writer: W,
        data_key: &Plaintext,
        encrypted: EncryptedDataKey,
        context: &EncryptionContext,
    ) -> Result<Self, SealError> {
        let message_id = MessageId::random().map_err(SealError::Randomness)?;
        Self::with_frame_length(writer, data_key, encrypted, context, message_id, FRAME_LENGTH)
    }

    pub(crate) fn with_frame_length(
        mut writer: W,
        data_key: &Plaintext,
        encrypted: EncryptedDataKey,
        context: &EncryptionContext,
        message_id: MessageId,
        frame_length: u32,
    ) -> Result<Self, SealError> {
        let keys = MessageKeys::derive(data_key, Suite::Committed, &message_id.0)?;
        let mut bytes = header::write(&message_id, context, &[encrypted], frame_length, keys.commitment())?;
        let tag = keys.seal(HEADER_IV, &bytes, &mut []);
        bytes.extend_from_slice(&tag);
        writer.write_all(&bytes).map_err(SealError::Write)?;

        let facts = HeaderFacts::new(&bytes, Suite::Committed, 1, frame_length);
        let (frame_length, written) = (frame_length as usize, bytes.len() as u64);
        let frames = Frames { keys, message_id, frame_length, sequence: 1 };
        Ok(Self { writer, frames, facts, frame: Zeroizing::default(), written, broken: false })
    }

    /// The facts of the header.
    pub fn facts(&self) -> HeaderFacts {
        self.facts
    }

    /// The length of the whole message for this many bytes of plaintext.
    pub fn message_length(&self, plaintext_length: u64) -> u64 {
        let frame_length = self.frames.frame_length as u64;
        let regular = plaintext_length.div_ceil(frame_length).saturating_sub(1);
        let overhead = regular.saturating_mul(REGULAR_OVERHEAD as u64) + LAST_OVERHEAD as u64;
        plaintext_length.saturating_add(overhead).saturating_add(self.facts.length as u64)
    }

    /// How much of the message was written to the writer.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The writer, such as a `Vec` of which is taken what has come.
    pub fn writer_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// Writes the last frame and returns the writer, unflushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_frame(Place::Last)?;
        Ok(self.writer)
    }

    /// Encrypts the buffer and writes it as one frame. No sequence number is used twice, whatever fails.
    fn write_frame(&mut self, place: Place) -> io::Result<()> {
        self.check_whole()?;
        self.broken = true;
        self.make_room();
        let (head, content) = self.frame.split_at_mut(LAST_HEAD);
        let (used, tag) = self.frames.seal(place, head, content)?;
        self.frame.extend_from_slice(&tag);
        self.writer.write_all(&self.frame[LAST_HEAD - used..])?;
        self.written += (self.frame.len() - LAST_HEAD + used) as u64;
        self.frame.truncate(LAST_HEAD);
        self.broken = false;
        Ok(())
    }

    /// All that a frame takes, so that nothing moves while there is plaintext in it.
    fn make_room(&mut self) {
        if self.frame.is_empty() {
            self.frame.reserve_exact(self.frames.frame_length + LAST_OVERHEAD);
            self.frame.resize(LAST_HEAD, 0);
        }
    }

    fn check_whole(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "an earlier frame of this message could not be written: seal it again as a new message",
            ));
        }
        Ok(())
    }
}

impl Sealer<Vec<u8>> {
    /// Seals all of `plaintext` in one go: the same message as by writing it and finishing, made in place.
    pub fn seal(mut self, plaintext: &[u8]) -> io::Result<Vec<u8>> {
        if !self.frame.is_empty() {
            self.write_all(plaintext)?;
            return self.finish();
        }
        self.check_whole()?;
        let mut message = self.writer;
        let length = plaintext.len();
        let overhead = length / self.frames.frame_length * REGULAR_OVERHEAD + LAST_OVERHEAD;
        message.reserve_exact(length + overhead);
        let mut rest = plaintext;
        loop {
            let (content, more) = rest.split_at(rest.len().min(self.frames.frame_length));
            let place = if more.is_empty() { Place::Last } else { Place::Regular };
            let head = message.len();
            let start = head + if more.is_empty() { LAST_HEAD } else { REGULAR_HEAD };
            message.resize(start, 0);
            message.extend_from_slice(content);
            let (before, content) = message.split_at_mut(start);
            let (_, tag) = self.frames.seal(place, &mut before[head..], content)?;
            message.extend_from_slice(&tag);
            rest = more;
            if rest.is_empty() {
                return Ok(message);
            }
        }
    }
}

impl Frames {
    /// Encrypts `content` in place and writes the end of `head`: how much of it, and the tag.
    fn seal(
        &mut self,
        place: Place,
        head: &mut [u8],
        content: &mut [u8],
    ) -> io::Result<(usize, [u8; TAG_BYTES])> {
        let (sequence, iv) = (self.sequence, iv(self.sequence));
        let content_bytes = u32::try_from(content.len()).expect("a frame length is a u32");
        // The mark of the last frame is no regular frame's number.
        if place == Place::Regular && sequence == LAST_FRAME {
            return Err(io::Error::other("a message holds 4,294,967,295 frames: split what is to be sealed"));
        }
        let (number, length) = (sequence.to_be_bytes(), content_bytes.to_be_bytes());
        let bytes = match place {
            Place::Regular => [&number[..], &iv].concat(),
            Place::Last | Place::Only => [&LAST_FRAME.to_be_bytes()[..], &number, &iv, &length].concat(),
        };
        let unused = head.len() - bytes.len();
        head[unused..].copy_from_slice(&bytes);
        let tag =
            self.keys.seal(iv, &aad(&self.message_id.0, place, sequence, content_bytes.into()), content);
        // The last frame may have the highest number; nothing comes after it.
        self.sequence = sequence.saturating_add(1);
        Ok((bytes.len(), tag))
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        self.check_whole()?;
        self.make_room();
        let full = LAST_HEAD + self.frames.frame_length;
        // Only when more comes is a full frame known not to be the last.
        if self.frame.len() == full && !plaintext.is_empty() {
            self.write_frame(Place::Regular)?;
        }
        let taken = plaintext.len().min(full - self.frame.len());
        self.frame.extend_from_slice(&plaintext[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check_whole()?;
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use key_broker_core::{CiphertextBlob, KeyArn};

    fn sealer<W: Write>(writer: W) -> Sealer<W> {
        let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234").expect("an ARN");
        let blob = CiphertextBlob::parse(vec![1].into()).expect("short");
        let (key, encrypted) = (Plaintext::new(vec![1; 32]), EncryptedDataKey::aws_kms(&arn, &blob));
        let context = EncryptionContext::default();
        Sealer::with_frame_length(writer, &key, encrypted, &context, MessageId([7; 32]), 1)
            .expect("a small header")
    }

    /// Takes the header and one frame.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("full"))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Proves: where a frame could not be written nothing more is, so that no number is used for two plaintexts.
    #[test]
    fn after_a_failed_write_every_call_fails() {
        let mut sealer = sealer(Full(2));
        sealer.write_all(b"ab").expect("one frame, and one that waits");
        assert_eq!(sealer.write(b"c").expect_err("full").to_string(), "full");
        for _ in 0..2 {
            let error = sealer.write(b"c").expect_err("broken");
            assert!(error.to_string().contains("seal it again"), "{error}");
        }
        assert!(sealer.flush().is_err() && sealer.finish().is_err());
    }

    /// Proves: a number is never used twice, however long the message: after the last one there is an end.
    #[test]
    fn numbers_end() {
        let mut first = sealer(Vec::new());
        first.frames.sequence = u32::MAX - 1;
        first.write_all(b"ab").expect("the last two frames");
        first.finish().expect("the last frame may have the highest number");
        let mut second = sealer(Vec::new());
        second.frames.sequence = u32::MAX - 1;
        second.write_all(b"ab").expect("the last two frames");
        let error = second.write(b"c").expect_err("no number is left");
        assert!(error.to_string().contains("split"), "{error}");
        assert!(second.finish().is_err(), "part of the plaintext is missing");
    }
}

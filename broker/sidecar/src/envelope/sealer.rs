//! Writing a message, frame by frame.

use std::io::{self, Write};

use key_broker_core::{EncryptionContext, Plaintext};

use super::frames::{HEADER_IV, LAST_FRAME, LAST_HEAD, Place, REGULAR_HEAD, aad, iv};
use super::header;
use super::keys::MessageKeys;
use super::{EncryptedDataKey, FRAME_LENGTH, MessageId, SealError, TAG_BYTES};

/// Encrypts what is written to it and writes the message on, a frame of 4 KiB at a time. It becomes a whole message only with
/// [`Sealer::finish`]: what is dropped before that no opener takes.
///
/// `flush` flushes the writer behind it; up to a frame of plaintext stays here until more is written or it is finished. After an
/// error the message is lost: every later call fails.
#[must_use = "a message is whole only when it is finished"]
pub struct Sealer<W: Write> {
    writer: W,
    keys: MessageKeys,
    message_id: MessageId,
    frame_length: usize,
    /// Room for a head, then the plaintext of the frame to come.
    frame: Vec<u8>,
    /// The number of the frame to come.
    sequence: u32,
    broken: bool,
}

impl<W: Write> Sealer<W> {
    /// Writes the header. `data_key` has 32 bytes; `encrypted` is the same data key, encrypted under `context`.
    pub fn new(
        writer: W,
        data_key: &Plaintext,
        encrypted: EncryptedDataKey,
        context: &EncryptionContext,
        message_id: MessageId,
    ) -> Result<Self, SealError> {
        Self::with_frame_length(writer, data_key, encrypted, context, message_id, FRAME_LENGTH)
    }

    pub(super) fn with_frame_length(
        mut writer: W,
        data_key: &Plaintext,
        encrypted: EncryptedDataKey,
        context: &EncryptionContext,
        message_id: MessageId,
        frame_length: u32,
    ) -> Result<Self, SealError> {
        let keys = MessageKeys::derive(data_key, &message_id)?;
        let mut bytes = header::write(&message_id, context, &[encrypted], frame_length, keys.commitment())?;
        let tag = keys.seal(HEADER_IV, &bytes, &mut []);
        bytes.extend_from_slice(&tag);
        writer.write_all(&bytes).map_err(SealError::Write)?;

        let frame_length = frame_length as usize;
        let mut frame = Vec::with_capacity(LAST_HEAD + frame_length + TAG_BYTES);
        frame.resize(LAST_HEAD, 0);
        Ok(Self { writer, keys, message_id, frame_length, frame, sequence: 1, broken: false })
    }

    /// Writes the last frame and gives the writer back: flushed by nobody yet.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_frame(Place::Last)?;
        Ok(self.writer)
    }

    /// Encrypts what is there and writes it in one piece. No number is used twice, whatever fails.
    fn write_frame(&mut self, place: Place) -> io::Result<()> {
        self.check_whole()?;
        self.broken = true;
        let (sequence, iv) = (self.sequence, iv(self.sequence));
        let (head, content) = self.frame.split_at_mut(LAST_HEAD);
        let content_bytes = u32::try_from(content.len()).expect("a frame length is a u32");
        let unused = match place {
            // The mark of the last frame is no regular frame's number.
            Place::Regular if sequence == LAST_FRAME => {
                return Err(io::Error::other(
                    "a message holds 4,294,967,295 frames: split what is to be sealed",
                ));
            }
            Place::Regular => LAST_HEAD - REGULAR_HEAD,
            Place::Last => 0,
        };
        let (sequence_bytes, length) = (sequence.to_be_bytes(), content_bytes.to_be_bytes());
        head[unused..].copy_from_slice(&match place {
            Place::Regular => [&sequence_bytes[..], &iv].concat(),
            Place::Last => [&LAST_FRAME.to_be_bytes()[..], &sequence_bytes, &iv, &length].concat(),
        });
        let tag = self.keys.seal(iv, &aad(&self.message_id, place, sequence, content_bytes), content);
        self.frame.extend_from_slice(&tag);
        self.writer.write_all(&self.frame[unused..])?;
        self.frame.truncate(LAST_HEAD);
        // The last frame may have the highest number; nothing comes after it.
        self.sequence = sequence.saturating_add(1);
        self.broken = false;
        Ok(())
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

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        self.check_whole()?;
        // Only when more comes is a full frame known not to be the last.
        if self.frame.len() == LAST_HEAD + self.frame_length && !plaintext.is_empty() {
            self.write_frame(Place::Regular)?;
        }
        let taken = plaintext.len().min(LAST_HEAD + self.frame_length - self.frame.len());
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
        first.sequence = u32::MAX - 1;
        first.write_all(b"ab").expect("the last two frames");
        first.finish().expect("the last frame may have the highest number");
        let mut second = sealer(Vec::new());
        second.sequence = u32::MAX - 1;
        second.write_all(b"ab").expect("the last two frames");
        let error = second.write(b"c").expect_err("no number is left");
        assert!(error.to_string().contains("split"), "{error}");
        assert!(second.finish().is_err(), "part of the plaintext is missing");
    }
}

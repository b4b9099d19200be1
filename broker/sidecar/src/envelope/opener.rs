//! Reading a message, frame by frame.

use std::io::{self, BufReader, ErrorKind, Read};
use std::ops::Range;

use super::frames::{LAST_FRAME, Place, aad};
use super::keys::MessageKeys;
use super::{IV_BYTES, MessageId, OpenError, TAG_BYTES};

/// Decrypts what it reads. A frame's plaintext is given out only when its tag, number and place have been found right; the last
/// frame's only when nothing follows it.
///
/// Only a read to the end proves the whole: until then the message may turn out to be cut off or forged further on, and what was
/// read is no more than its true beginning. After an error nothing more is given out. [`OpenError::behind`] finds the reason in
/// that error.
pub struct Opener<R: Read> {
    reader: BufReader<R>,
    keys: MessageKeys,
    message_id: MessageId,
    frame_length: u32,
    /// The frame at hand: its content, decrypted, then its tag.
    frame: Vec<u8>,
    /// What of it is still to be given out.
    rest: Range<usize>,
    /// The number that the next frame has to have. The first has 1.
    sequence: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The last frame was right, and nothing follows.
    Ended,
    Refused,
}

/// What stands before a frame's content.
struct Head {
    place: Place,
    sequence: u32,
    /// As it stands there: the specification makes it of the number, but AWS's commitment vectors have others. Under any but the
    /// sealer's the tag is wrong.
    iv: [u8; IV_BYTES],
    content_bytes: u32,
}

impl<R: Read> Opener<R> {
    /// Of a message whose header was found right.
    pub(super) fn new(reader: R, keys: MessageKeys, message_id: MessageId, frame_length: u32) -> Self {
        let (reader, frame) = (BufReader::new(reader), Vec::new());
        Self { reader, keys, message_id, frame_length, frame, rest: 0..0, sequence: 1, state: State::Open }
    }

    /// Reads and checks one frame.
    fn read_frame(&mut self) -> Result<State, OpenError> {
        let Head { place, sequence, iv, content_bytes } = self.read_head()?;
        if sequence != self.sequence {
            return Err(OpenError::Sequence { expected: self.sequence, found: sequence });
        }
        if content_bytes > self.frame_length {
            return Err(OpenError::LastFrameLength { content: content_bytes, frame: self.frame_length });
        }
        self.frame.resize(content_bytes as usize + TAG_BYTES, 0);
        self.reader.read_exact(&mut self.frame).map_err(|error| OpenError::reading(error, sequence))?;
        let (content, tag) = self.frame.split_last_chunk_mut().expect("there is room for a tag");
        let aad = aad(&self.message_id, place, sequence, content_bytes);
        self.keys.open(iv, &aad, content, *tag).map_err(|_| OpenError::FrameTag(sequence))?;
        let state = match place {
            // A regular frame's number is below the mark of the last one.
            Place::Regular => {
                self.sequence += 1;
                State::Open
            }
            Place::Last => {
                self.check_end()?;
                State::Ended
            }
        };
        self.rest = 0..content_bytes as usize;
        Ok(state)
    }

    fn read_head(&mut self) -> Result<Head, OpenError> {
        Ok(match self.read_u32()? {
            LAST_FRAME => Head {
                place: Place::Last,
                sequence: self.read_u32()?,
                iv: self.read_array()?,
                content_bytes: self.read_u32()?,
            },
            sequence => Head {
                place: Place::Regular,
                sequence,
                iv: self.read_array()?,
                content_bytes: self.frame_length,
            },
        })
    }

    fn read_u32(&mut self) -> Result<u32, OpenError> {
        self.read_array().map(u32::from_be_bytes)
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], OpenError> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| OpenError::reading(error, self.sequence))?;
        Ok(bytes)
    }

    fn check_end(&mut self) -> Result<(), OpenError> {
        match self.reader.read_exact(&mut [0]) {
            Ok(()) => Err(OpenError::TrailingBytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(OpenError::Read(error)),
        }
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, plaintext: &mut [u8]) -> io::Result<usize> {
        // A last frame may be empty.
        while self.rest.is_empty() && !plaintext.is_empty() {
            match self.state {
                State::Open => {
                    self.state = State::Refused;
                    self.state = self.read_frame()?;
                }
                State::Ended => return Ok(0),
                State::Refused => return Err(OpenError::Refused.into()),
            }
        }
        let given = plaintext.len().min(self.rest.len());
        let start = self.rest.start;
        plaintext[..given].copy_from_slice(&self.frame[start..start + given]);
        self.rest.start += given;
        Ok(given)
    }
}

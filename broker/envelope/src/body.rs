//! Decrypts a message body as it arrives (message-body.md, message-footer.md): a state machine without I/O.

use std::borrow::Cow;
use std::mem;

use zeroize::Zeroizing;

use crate::error::OpenError;
use crate::format::{IV_BYTES, MAX_CONTENT_BYTES, TAG_BYTES};
use crate::frames::{LAST_FRAME, LAST_HEAD, ONLY_HEAD, Place, REGULAR_HEAD, REGULAR_OVERHEAD, aad};
use crate::keys::MessageKeys;
use crate::signature::Signed;

/// Decrypts what it is given. A frame's plaintext is given out only when its tag, number and place have been found right; the last
/// frame's, and content without frames, only at the end, when nothing follows and the signature, if there is one, is right.
///
/// Only [`BodyOpener::finish`] proves the whole: until then the message may turn out to be cut off or forged further on, and what
/// was given out is no more than its true beginning; of a signed message, it is not even known to be the signer's. After an error
/// nothing more is given out. It holds one frame, encrypted.
pub struct BodyOpener {
    keys: MessageKeys,
    message_id: Vec<u8>,
    /// 0: there are no frames.
    frame_length: u32,
    max_unframed: u64,
    signed: Option<Signed>,
    awaits: Awaits,
    /// The beginning of what it awaits.
    begun: Vec<u8>,
    /// The last frame, encrypted.
    last: Vec<u8>,
    /// The number that the next frame has to have. The first has 1.
    sequence: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// A frame, or the content without frames.
    Frame,
    /// The signature and its length.
    Footer,
    /// Nothing any more.
    End,
    /// It was refused.
    Nothing,
}

/// A frame in its parts.
struct Frame<'a> {
    place: Place,
    sequence: u32,
    /// As it stands there: the specification makes it of the number, but AWS's commitment vectors have others. Under any but the
    /// sealer's the tag is wrong.
    iv: [u8; IV_BYTES],
    content: &'a [u8],
    tag: [u8; TAG_BYTES],
}

impl BodyOpener {
    /// For a message whose header has been verified.
    pub(crate) fn new(
        keys: MessageKeys,
        message_id: Vec<u8>,
        frame_length: u32,
        max_unframed: u64,
        signed: Option<Signed>,
    ) -> Self {
        let (begun, last) = (Vec::new(), Vec::new());
        let (awaits, max_unframed) = (Awaits::Frame, max_unframed.min(MAX_CONTENT_BYTES));
        Self { keys, message_id, frame_length, max_unframed, signed, awaits, begun, last, sequence: 1 }
    }

    /// Takes in the next bytes of the body, as many as there are. What may be given out now is returned: empty while no frame but
    /// the last is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let frame_length = self.frame_length as usize;
        let frames = (self.begun.len() + bytes.len()) / (frame_length + REGULAR_OVERHEAD);
        let mut plaintext = Zeroizing::new(Vec::with_capacity(frames * frame_length));
        self.push_into(bytes, &mut plaintext)?;
        Ok(plaintext)
    }

    /// The message ends here: checks that it is whole, and returns the rest of its plaintext.
    pub fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(self.last.len()));
        self.finish_into(&mut plaintext)?;
        Ok(plaintext)
    }

    /// All of the plaintext of a whole body, or nothing.
    pub(crate) fn open_whole(mut self, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(body.len()));
        self.push_into(body, &mut plaintext)?;
        self.finish_into(&mut plaintext)?;
        Ok(plaintext)
    }

    /// `plaintext` has room: it must not grow, which would leave a copy behind.
    fn push_into(&mut self, bytes: &[u8], plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        let taken = self.take_units(bytes, plaintext);
        if taken.is_err() {
            self.awaits = Awaits::Nothing;
        }
        taken
    }

    fn take_units(&mut self, mut bytes: &[u8], plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        while !bytes.is_empty() {
            let length = self.unit_length(if self.begun.is_empty() { bytes } else { &self.begun })?;
            if self.begun.is_empty() && length <= bytes.len() {
                let (unit, rest) = bytes.split_at(length);
                bytes = rest;
                self.take_unit(unit.into(), plaintext)?;
                continue;
            }
            let (more, rest) = bytes.split_at((length - self.begun.len()).min(bytes.len()));
            bytes = rest;
            self.begun.extend_from_slice(more);
            if self.unit_length(&self.begun)? == self.begun.len() {
                let unit = mem::take(&mut self.begun);
                self.take_unit(unit.into(), plaintext)?;
            }
        }
        Ok(())
    }

    /// The length of the frame or footer that begins with `bytes`, as far as known: all of it, or more than `bytes`.
    fn unit_length(&self, bytes: &[u8]) -> Result<usize, OpenError> {
        let field = |at: usize| bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_be_bytes);
        match self.awaits {
            Awaits::Frame if self.frame_length == 0 => {
                let Some(length) = bytes.get(IV_BYTES..ONLY_HEAD) else { return Ok(ONLY_HEAD) };
                let length = u64::from_be_bytes(*length.first_chunk().expect("eight bytes"));
                let limit = self.max_unframed;
                let fits = usize::try_from(length).ok().filter(|_| length <= limit);
                let content = fits.ok_or(OpenError::ContentLength { content: length, limit })?;
                Ok(ONLY_HEAD + content + TAG_BYTES)
            }
            Awaits::Frame => match field(0) {
                None => Ok(4),
                Some(LAST_FRAME) => match field(LAST_HEAD - 4) {
                    None => Ok(LAST_HEAD),
                    Some(content) if content > self.frame_length => {
                        Err(OpenError::LastFrameLength { content, frame: self.frame_length })
                    }
                    Some(content) => Ok(LAST_HEAD + content as usize + TAG_BYTES),
                },
                Some(_) => Ok(REGULAR_OVERHEAD + self.frame_length as usize),
            },
            Awaits::Footer => Ok(match bytes.first_chunk() {
                None => 2,
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            }),
            Awaits::End => Err(OpenError::TrailingBytes),
            Awaits::Nothing => Err(OpenError::Refused),
        }
    }

    /// A whole frame or footer.
    fn take_unit(&mut self, unit: Cow<'_, [u8]>, plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        if self.awaits == Awaits::Footer {
            let signed = self.signed.take().ok_or(OpenError::Signature)?;
            signed.verify(&unit[2..])?;
            self.awaits = Awaits::End;
            return Ok(());
        }
        let frame = self.frame(&unit);
        if frame.sequence != self.sequence {
            return Err(OpenError::Sequence { expected: self.sequence, found: frame.sequence });
        }
        let is_last = frame.place != Place::Regular;
        if !is_last {
            self.decrypt(&frame, plaintext)?;
            // A regular frame's number is below the mark of the last one.
            self.sequence += 1;
        }
        if let Some(signed) = &mut self.signed {
            signed.update(&unit);
        }
        if is_last {
            self.last = unit.into_owned();
            self.awaits = if self.signed.is_some() { Awaits::Footer } else { Awaits::End };
        }
        Ok(())
    }

    fn finish_into(&mut self, plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        match self.awaits {
            Awaits::End => {
                let last = mem::take(&mut self.last);
                self.decrypt(&self.frame(&last), plaintext)
            }
            Awaits::Frame | Awaits::Footer => Err(OpenError::CutOff(self.sequence)),
            Awaits::Nothing => Err(OpenError::Refused),
        }
    }

    /// Appends a frame's plaintext, if it is authentic.
    fn decrypt(&self, frame: &Frame<'_>, plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        let aad = aad(&self.message_id, frame.place, frame.sequence, frame.content.len() as u64);
        let start = plaintext.len();
        plaintext.extend_from_slice(frame.content);
        let opened = self.keys.open(frame.iv, &aad, &mut plaintext[start..], frame.tag);
        opened.map_err(|_| {
            plaintext.truncate(start);
            OpenError::FrameTag(frame.sequence)
        })
    }

    /// The parts of a whole frame.
    fn frame<'a>(&self, unit: &'a [u8]) -> Frame<'a> {
        let number = |at: usize| u32::from_be_bytes(*unit[at..].first_chunk().expect("the frame is whole"));
        let is_last = number(0) == LAST_FRAME;
        let (place, sequence, iv_at, content_at) = match self.frame_length {
            0 => (Place::Only, 1, 0, ONLY_HEAD),
            _ if is_last => (Place::Last, number(4), 8, LAST_HEAD),
            _ => (Place::Regular, number(0), 4, REGULAR_HEAD),
        };
        let (content, tag) = unit[content_at..].split_last_chunk().expect("the frame is whole");
        let iv = *unit[iv_at..].first_chunk().expect("the frame is whole");
        Frame { place, sequence, iv, content, tag: *tag }
    }
}

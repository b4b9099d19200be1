//! Reading a message from a reader.

use std::io::{self, Read};
use std::mem;

use zeroize::Zeroizing;

use crate::body::BodyOpener;
use crate::error::OpenError;

/// Decrypts what it reads, as [`BodyOpener`] does: only a read to the end proves the whole. [`OpenError::behind`] finds the reason in
/// its errors.
pub struct Opener<R: Read> {
    reader: R,
    state: State,
    /// What was read, encrypted.
    buffer: Vec<u8>,
    /// What may be given out, and how much of it has been.
    plaintext: Zeroizing<Vec<u8>>,
    given: usize,
}

enum State {
    Open(Box<BodyOpener>),
    /// The message was right to its end.
    Ended,
    Refused,
}

impl<R: Read> Opener<R> {
    pub(crate) fn new(reader: R, body: BodyOpener) -> Self {
        let (state, buffer) = (State::Open(Box::new(body)), vec![0; BUFFER_BYTES]);
        Self { reader, state, buffer, plaintext: Zeroizing::default(), given: 0 }
    }

    /// Reads on, and keeps what it makes known.
    fn read_on(&mut self) -> Result<(), OpenError> {
        let State::Open(body) = &mut self.state else { return Err(OpenError::Refused) };
        // A failing reader says nothing about the message: it may be asked again.
        let read = self.reader.read(&mut self.buffer).map_err(OpenError::Read)?;
        // Nothing is given twice, whatever follows.
        (self.plaintext, self.given) = (Zeroizing::default(), 0);
        if read > 0 {
            self.plaintext = body.push(&self.buffer[..read])?;
        } else if let State::Open(body) = mem::replace(&mut self.state, State::Refused) {
            self.plaintext = body.finish()?;
            self.state = State::Ended;
        }
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, plaintext: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plaintext.len() && !plaintext.is_empty() {
            if matches!(self.state, State::Ended) {
                return Ok(0);
            }
            self.read_on()?;
        }
        let rest = &self.plaintext[self.given..];
        let given = plaintext.len().min(rest.len());
        plaintext[..given].copy_from_slice(&rest[..given]);
        self.given += given;
        Ok(given)
    }
}

/// Sixteen frames of the usual length.
const BUFFER_BYTES: usize = 64 << 10;

//! The memory of a process, searched for what should not be in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Something to look for: any of its pieces of [`PIECE`] bytes counts, since a copy may be overwritten in part.
pub struct Needle {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// A piece that was found.
#[derive(Debug)]
pub struct Found {
    pub name: String,
    /// The mapping, as in proc(5).
    pub mapping: String,
    /// What is around it, as far as it is text.
    pub around: String,
}

/// Reads all writable memory of a process: key material can be nowhere else.
pub fn search(pid: u32, needles: &[Needle]) -> io::Result<Vec<Found>> {
    let pieces = Pieces::of(needles);
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let Some((start, len)) = writable(line) else { continue };
        let mut bytes = vec![0; len];
        // Pages of a mapping may be unreadable, as those behind the end of a file.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        for (at, name) in pieces.within(&bytes) {
            let around = &bytes[at.saturating_sub(48)..(at + 64).min(len)];
            let around =
                around.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' });
            found.push(Found { name: name.to_owned(), mapping: line.to_owned(), around: around.collect() });
        }
    }
    Ok(found)
}

/// The `VmFlags` of a mapping, as in proc(5).
pub fn flags(pid: u32, mapping: &str) -> io::Result<String> {
    let mappings = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut lines = mappings.lines().skip_while(|line| *line != mapping);
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    flags.map(str::to_owned).ok_or_else(|| io::Error::other("no such mapping"))
}

fn writable(line: &str) -> Option<(u64, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    fields.next()?.starts_with("rw").then_some(())?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some((start, usize::try_from(end - start).ok()?))
}

struct Pieces<'a> {
    /// By their first two bytes: most places of the memory are passed over with one look.
    by_start: Vec<Vec<(&'a [u8], &'a str)>>,
}

impl<'a> Pieces<'a> {
    fn of(needles: &'a [Needle]) -> Self {
        let mut by_start = vec![Vec::new(); 1 << 16];
        for needle in needles {
            for piece in needle.bytes.chunks_exact(PIECE) {
                by_start[usize::from(u16::from_le_bytes([piece[0], piece[1]]))]
                    .push((piece, needle.name.as_str()));
            }
        }
        Self { by_start }
    }

    fn within(&self, bytes: &[u8]) -> Vec<(usize, &'a str)> {
        let mut found = Vec::new();
        for (at, start) in bytes.windows(2).enumerate() {
            for (piece, name) in &self.by_start[usize::from(u16::from_le_bytes([start[0], start[1]]))] {
                if bytes[at..].starts_with(piece) {
                    found.push((at, *name));
                }
            }
        }
        found
    }
}

/// Short enough to find torn copies, long enough that random bytes never equal it.
pub const PIECE: usize = 8;

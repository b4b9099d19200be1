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
    let pages = Pages::of(pid)?;
    let mut found = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let Some((start, len)) = writable(line) else { continue };
        for (start, len) in pages.touched(start, len)? {
            let mut bytes = vec![0; len];
            // Pages of a mapping may be unreadable, as those behind the end of a file.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            for (at, name) in pieces.within(&bytes) {
                let around = &bytes[at.saturating_sub(48)..(at + 64).min(len)];
                let text = |byte: &u8| if (32..127).contains(byte) { char::from(*byte) } else { '.' };
                let (name, mapping) = (name.to_owned(), line.to_owned());
                found.push(Found { name, mapping, around: around.iter().map(text).collect() });
            }
        }
    }
    Ok(found)
}

/// Which pages of a process exist, in memory or swapped out. The others, such as most of what an allocator has reserved, have never
/// been written to, and take no time.
struct Pages {
    map: File,
    size: u64,
}

impl Pages {
    fn of(pid: u32) -> io::Result<Self> {
        let size = rustix::param::page_size() as u64;
        Ok(Self { map: File::open(format!("/proc/{pid}/pagemap"))?, size })
    }

    /// The parts of a mapping that exist.
    fn touched(&self, start: u64, len: usize) -> io::Result<Vec<(u64, usize)>> {
        let page = usize::try_from(self.size).expect("a page is small");
        let mut entries = vec![0; len / page * ENTRY_BYTES];
        self.map.read_exact_at(&mut entries, start / self.size * ENTRY_BYTES as u64)?;
        let mut parts: Vec<(u64, usize)> = Vec::new();
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        for (at, entry) in (start..).step_by(page).zip(entries) {
            if u64::from_le_bytes(*entry) & (PRESENT | SWAPPED) == 0 {
                continue;
            }
            match parts.last_mut() {
                Some((start, len)) if *start + *len as u64 == at => *len += page,
                _ => parts.push((at, page)),
            }
        }
        Ok(parts)
    }
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
/// Of a page in pagemap: <https://docs.kernel.org/admin-guide/mm/pagemap.html>.
const ENTRY_BYTES: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

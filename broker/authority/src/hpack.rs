//! Finds the `:authority` values of header blocks (HPACK, RFC 7541) and edits them in place.

use std::collections::VecDeque;

use crate::{host, huffman};

/// Edits the header blocks of one connection, each once and in order.
#[derive(Default)]
pub(crate) struct BlockEditor {
    table: DynamicTable,
    /// The `:authority` values of the current block.
    authorities: Vec<StringLiteral>,
}

/// A string literal's place in its block.
#[derive(Clone, Copy)]
struct StringLiteral {
    start: usize,
    end: usize,
    huffman: bool,
}

impl BlockEditor {
    /// Edits a whole block. `None` if it is malformed; then it stays as it is, and the blocks after it cannot be followed.
    pub(crate) fn edit(&mut self, block: &mut [u8]) -> Option<()> {
        let read = self.read(block);
        if read.is_some() {
            for literal in &self.authorities {
                let value = &mut block[literal.start..literal.end];
                if literal.huffman { huffman::normalize(value) } else { host::normalize(value) }
            }
        }
        self.authorities.clear();
        self.authorities.shrink_to(KEPT_AUTHORITIES);
        read
    }

    fn read(&mut self, block: &[u8]) -> Option<()> {
        let mut reader = BlockReader { block, at: 0 };
        let mut resizable = true;
        while let Some(first) = reader.peek() {
            if first & 0x80 != 0 {
                // Indexed: a static entry, or one whose value was edited on its way into the table.
                self.table.name(reader.integer(7)?)?;
            } else if first & 0x40 != 0 {
                let (name, value) = self.literal(&mut reader, 6)?;
                self.table.insert(name, value.decoded_len(block)?);
            } else if first & 0x20 != 0 {
                let size = reader.integer(5)?;
                if !resizable || size > MAX_TABLE_SIZE {
                    return None;
                }
                self.table.resize(size);
                continue;
            } else {
                self.literal(&mut reader, 4)?;
            }
            resizable = false;
        }
        Some(())
    }

    /// A literal field, whether or not it goes into the table.
    fn literal(&mut self, reader: &mut BlockReader<'_>, prefix: u32) -> Option<(FieldName, StringLiteral)> {
        let name = match reader.integer(prefix)? {
            0 => reader.string()?.name(reader.block)?,
            index => self.table.name(index)?,
        };
        let value = reader.string()?;
        if name.is_authority {
            value.decoded_len(reader.block)?; // Editing relies on whole codes.
            self.authorities.push(value);
        }
        Some((name, value))
    }
}

impl StringLiteral {
    fn decoded_len(self, block: &[u8]) -> Option<usize> {
        let bytes = &block[self.start..self.end];
        if self.huffman { huffman::decoded_len(bytes) } else { Some(bytes.len()) }
    }

    fn name(self, block: &[u8]) -> Option<FieldName> {
        let bytes = &block[self.start..self.end];
        let is_authority = bytes == if self.huffman { huffman::AUTHORITY } else { AUTHORITY };
        Some(FieldName { len: self.decoded_len(block)?, is_authority })
    }
}

/// The dynamic table as far as finding `:authority` needs it: the lengths of names and the sizes of entries, not their
/// text.
struct DynamicTable {
    /// Newest first. [`MAX_TABLE_SIZE`] and [`ENTRY_OVERHEAD`] bound them to 128.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    name: FieldName,
    size: usize,
}

#[derive(Clone, Copy)]
struct FieldName {
    len: usize,
    is_authority: bool,
}

impl Default for DynamicTable {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size: MAX_TABLE_SIZE }
    }
}

impl DynamicTable {
    /// The name of an entry, of the static table first (RFC 7541, section 2.3.3).
    fn name(&self, index: usize) -> Option<FieldName> {
        let index = index.checked_sub(1)?;
        match STATIC_NAME_LENGTHS.get(index) {
            Some(&len) => Some(FieldName { len: usize::from(len), is_authority: index == 0 }),
            None => self.entries.get(index - STATIC_NAME_LENGTHS.len()).map(|entry| entry.name),
        }
    }

    /// An entry that does not fit empties the table, which is not an error (RFC 7541, sections 4.1 and 4.4).
    fn insert(&mut self, name: FieldName, value_len: usize) {
        let size = name.len + value_len + ENTRY_OVERHEAD;
        self.evict(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(Entry { name, size });
        }
    }

    fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict(max_size);
    }

    fn evict(&mut self, until: usize) {
        while self.size > until
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

struct BlockReader<'a> {
    block: &'a [u8],
    at: usize,
}

impl BlockReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.block.get(self.at).copied()
    }

    fn next(&mut self) -> Option<usize> {
        let byte = self.peek()?;
        self.at += 1;
        Some(usize::from(byte))
    }

    /// An integer (RFC 7541, section 5.1) of at most five bytes, as in h2.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1 << prefix) - 1;
        let mut value = self.next()? & mask;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.next()?;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<StringLiteral> {
        let huffman = self.peek()? & 0x80 != 0;
        let len = self.integer(7)?;
        let start = self.at;
        self.at = start.checked_add(len).filter(|&end| end <= self.block.len())?;
        Some(StringLiteral { start, end: self.at, huffman })
    }
}

/// The initial `SETTINGS_HEADER_TABLE_SIZE` (RFC 9113, section 6.5.2), which h2, hyper and tonic keep. A client has to
/// announce a larger table in a block before it may use it; editing ends there.
const MAX_TABLE_SIZE: usize = 4096;

/// How many values' places stay allocated between blocks. A request has one; a block of 264 KiB has room for 135,168, which h2
/// refuses.
const KEPT_AUTHORITIES: usize = 4;

/// RFC 7541, section 4.1.
const ENTRY_OVERHEAD: usize = 32;

const AUTHORITY: &[u8] = b":authority";

/// RFC 7541, appendix A, from `:authority` to `www-authenticate`.
const STATIC_NAME_LENGTHS: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

#[cfg(test)]
mod tests {
    //! The tables are RFC 7541's.

    use super::*;

    /// Proves: the static table's names have the lengths that an independent decoder gives them, and one is `:authority`.
    #[test]
    fn static_names_are_the_rfcs() {
        for index in 1..=61_u8 {
            let headers = loona_hpack::Decoder::new().decode(&[0x80 | index]).expect("a static entry");
            let name = DynamicTable::default().name(usize::from(index)).expect("a static entry");
            assert_eq!((name.len, name.is_authority), (headers[0].0.len(), headers[0].0 == AUTHORITY));
        }
        assert!(DynamicTable::default().name(0).is_none() && DynamicTable::default().name(62).is_none());
    }

    /// Proves: entries leave the dynamic table when RFC 7541 says so, and their names cannot be used any more.
    #[test]
    fn the_dynamic_table_evicts() {
        let mut editor = BlockEditor::default();
        let entries =
            |editor: &BlockEditor| (62..200).take_while(|&index| editor.table.name(index).is_some()).count();
        // 1 + 31 + 32 bytes: 64 of them fill the table.
        let entry = [&[0x40, 1, b'x', 31][..], &[b'v'; 31]].concat();
        for n in 1..=70 {
            editor.edit(&mut entry.clone()).expect("well-formed");
            assert_eq!(entries(&editor), n.min(64));
        }
        for (block, left) in [
            (&[0x3f, 0xe1, 0x01][..], 4), // size 256
            (&[0x3f, 0xe0, 0x01], 3),     // size 255
            (&[0x3f, 0xe1, 0x1f], 3),     // size 4096
            (&[&[0x40, 0, 0x7f, 0xe1, 0x1e][..], &[b'v'; 4064]].concat(), 1),
            (&[&[0x40, 0, 0x7f, 0xe2, 0x1e][..], &[b'v'; 4065]].concat(), 0),
        ] {
            editor.edit(&mut block.to_vec()).expect("well-formed");
            assert_eq!(entries(&editor), left, "{:x?}", &block[..3]);
        }
        assert!(editor.edit(&mut [0x3f, 0xe2, 0x1f]).is_none(), "more than was announced");
    }

    /// Proves: a block full of `:authority` fields does not leave its memory with the connection.
    #[test]
    fn many_values_are_forgotten() {
        let mut editor = BlockEditor::default();
        editor.edit(&mut b"\x01\x00".repeat(30_000)).expect("well-formed");
        assert!(editor.authorities.capacity() <= KEPT_AUTHORITIES);
    }
}

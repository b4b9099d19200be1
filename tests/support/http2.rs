//! HTTP/2 as bytes (RFC 9113): frames that no client would send, or not in that order.

use super::raw::framed;

/// A frame of this kind.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header fields of a call of the method at `path`, as literals that no table keeps (RFC 7541, 6.2.2).
pub fn block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits (RFC 7541, 5.1).
            let mut rest = text.len();
            if rest < 127 {
                block.push(u8::try_from(rest).expect("small"));
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).expect("small") | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).expect("small"));
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A whole call.
pub fn call(path: &str, stream: u32, message: &[u8]) -> Vec<u8> {
    [frame(1, END_HEADERS, stream, &block(path, &[])), frame(0, END_STREAM, stream, &framed(0, message))]
        .concat()
}

/// Tells the other end to send no bytes of replies before it is told how many.
pub fn no_window() -> Vec<u8> {
    frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])
}

/// RFC 9113, 3.4: and an empty SETTINGS frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

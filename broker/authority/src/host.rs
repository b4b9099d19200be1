//! What an authority may hold: a host and perhaps a port (RFC 3986, section 3.2).

/// Replaces what h2 refuses in `value`, and leaves a valid host and port alone.
pub(crate) fn normalize(value: &mut [u8]) {
    if is_host_and_port(value.iter().copied()) {
        return;
    }
    for byte in value.iter_mut().filter(|byte| !is_host(**byte)) {
        *byte = b'-';
    }
}

/// A registered name, perhaps with a port, as in `localhost:50051`. h2 accepts it, so it stays as it is.
pub(crate) fn is_host_and_port(mut bytes: impl Iterator<Item = u8>) -> bool {
    match bytes.find(|&byte| !is_host(byte)) {
        None => true,
        Some(b':') => bytes.all(|byte| byte.is_ascii_digit()),
        Some(_) => false,
    }
}

/// Whether `byte` is valid anywhere in an authority and delimits nothing there: `reg-name` of RFC 3986, section
/// 3.2.2, without percent-encoding.
pub(crate) const fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

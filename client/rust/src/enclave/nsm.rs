//! The Nitro Security Module of an enclave: `/dev/nsm`.
//!
//! Uses the kernel's interface (Linux `include/uapi/linux/nsm.h`) and the module's CBOR messages directly
//! (<https://github.com/aws/aws-nitro-enclaves-nsm-api>, `docs/attestation_process.md`): AWS's own crate brings `serde_cbor`,
//! which is no longer maintained (RUSTSEC-2021-0127).
#![expect(
    unsafe_code,
    reason = "the kernel's interface is an ioctl over pointers; there is one, in `exchange`"
)]

use std::fs::{File, OpenOptions};
use std::io;

use minicbor::{Decoder, Encoder};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::attestation::{AttestationError, AttestationProvider};

/// The Nitro Security Module of this enclave.
#[derive(Debug)]
pub struct Nsm {
    device: File,
}

impl Nsm {
    /// Opens `/dev/nsm`. Outside an enclave there is none.
    pub fn open() -> io::Result<Self> {
        Ok(Self { device: OpenOptions::new().read(true).write(true).open(DEVICE)? })
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut response = vec![0; MAX_RESPONSE];
        let mut message = Message {
            request: Buffer { address: address(request.as_ptr()), length: request.len() as u64 },
            response: Buffer { address: address(response.as_mut_ptr()), length: response.len() as u64 },
        };
        // SAFETY: `EXCHANGE` is NSM_IOCTL_RAW, which takes a `struct nsm_raw`; `Message` is laid out as one. The kernel reads
        // `request.length` bytes at `request.address` and writes at most `response.length` at `response.address`: the lengths
        // are those of the two buffers, which live until it returns, and nobody else uses `response` meanwhile.
        unsafe { ioctl(&self.device, Updater::<EXCHANGE, Message>::new(&mut message)) }?;
        response.truncate(usize::try_from(message.response.length).unwrap_or(MAX_RESPONSE));
        Ok(response)
    }
}

impl AttestationProvider for Nsm {
    fn attest(&self, public_key_spki: &[u8]) -> Result<Vec<u8>, AttestationError> {
        if public_key_spki.len() > MAX_PUBLIC_KEY {
            return Err("the public key is longer than 1,024 bytes".into());
        }
        let response = self
            .exchange(&request(public_key_spki))
            .map_err(|error| format!("the Nitro Security Module does not answer: {error}"))?;
        document(&response)
    }
}

/// `{"Attestation": {"user_data": null, "nonce": null, "public_key": bytes}}`
fn request(public_key_spki: &[u8]) -> Vec<u8> {
    let mut cbor = Encoder::new(Vec::new());
    let encoded: Result<_, minicbor::encode::Error<std::convert::Infallible>> = (|| {
        cbor.map(1)?.str("Attestation")?.map(3)?;
        cbor.str("user_data")?.null()?.str("nonce")?.null()?;
        cbor.str("public_key")?.bytes(public_key_spki)?;
        Ok(())
    })();
    encoded.expect("a Vec takes all");
    cbor.into_writer()
}

/// The document in `{"Attestation": {"document": bytes}}`. The other answer is `{"Error": name}`.
fn document(response: &[u8]) -> Result<Vec<u8>, AttestationError> {
    let mut cbor = Decoder::new(response);
    let unread = |_| "the Nitro Security Module's answer cannot be read";
    cbor.map().map_err(unread)?;
    match cbor.str().map_err(unread)? {
        "Attestation" => {
            cbor.map().map_err(unread)?;
            match cbor.str().map_err(unread)? {
                "document" => Ok(cbor.bytes().map_err(unread)?.to_vec()),
                _ => Err("the Nitro Security Module's answer has no document".into()),
            }
        }
        "Error" => {
            let name = cbor.str().map_err(unread)?;
            Err(format!("the Nitro Security Module refuses: {}", name.escape_default()).into())
        }
        _ => Err("the Nitro Security Module answers something else".into()),
    }
}

/// `struct nsm_raw`.
#[repr(C)]
struct Message {
    request: Buffer,
    response: Buffer,
}

/// `struct nsm_iovec`.
#[repr(C)]
struct Buffer {
    address: u64,
    length: u64,
}

fn address(pointer: *const u8) -> u64 {
    pointer.expose_provenance() as u64
}

const DEVICE: &str = "/dev/nsm";
/// `NSM_IOCTL_RAW`: `_IOWR(0x0A, 0x0, struct nsm_raw)`.
const EXCHANGE: Opcode = opcode::read_write::<Message>(0x0a, 0);
/// `NSM_RESPONSE_MAX_SIZE`.
const MAX_RESPONSE: usize = 0x3000;
/// The module's own bound on a public key.
const MAX_PUBLIC_KEY: usize = 1024;

#[cfg(test)]
mod tests {
    //! The module's messages, byte by byte as AWS's own crate writes and reads them. No module is asked.

    use super::*;

    #[test]
    fn the_request_is_that_of_the_modules_own_crate() {
        let expected = [
            b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\xf6\x6apublic_key".as_slice(),
            b"\x43\x01\x02\x03",
        ]
        .concat();
        assert_eq!(request(&[1, 2, 3]), expected);
    }

    #[test]
    fn the_request_code_is_the_kernels() {
        assert_eq!(EXCHANGE, 0xc020_0a00);
    }

    #[test]
    fn a_document_a_refusal_and_nonsense_are_told_apart() {
        assert_eq!(document(b"\xa1\x6bAttestation\xa1\x68document\x42\x07\x08").expect("a document"), [7, 8]);
        let refusal = document(b"\xa1\x65Error\x6dInputTooLarge").expect_err("a refusal");
        assert_eq!(refusal.to_string(), "the Nitro Security Module refuses: InputTooLarge");
        for nonsense in
            [b"".as_slice(), b"\xa0", b"\xa1\x61x\x01", b"\xa1\x6bAttestation\xa1\x68document\x42\x07"]
        {
            document(nonsense).expect_err("no document");
        }
    }
}

//! Proves that a parent instance and an enclave, each an emulated machine of its own, start with a vsock device each, and that
//! the programs of the parent instance run there.

mod guests;
#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::time::Duration;

use guests::{Files, Guest, PARENT};
use support::process::{binary, kms_emulator};

const ENCLAVE: u32 = 4;
const WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_parent_instance_and_an_enclave() {
    let programs = Files::default().program(binary()).program(&kms_emulator());
    let Some([mut parent, mut enclave]) = Guest::boot([(PARENT, programs), (ENCLAVE, Files::default())])
    else {
        return;
    };
    for guest in [&mut parent, &mut enclave] {
        let driver = guest.run("ls -1 /dev/vsock /sys/bus/virtio/drivers/vmw_vsock_virtio_transport", WITHIN);
        assert!(driver.contains(&"virtio0".to_owned()), "{driver:?}");
    }
    let version = parent.run("key-broker --version", WITHIN);
    assert!(version[0].starts_with("key-broker "), "{version:?}");
    parent.run("kms-emulator --listen 127.0.0.1:4566 &", WITHIN);
    parent.wait_for("listening on http://127.0.0.1:4566", WITHIN);
    let calls = parent.run("wget -q -O - http://127.0.0.1:4566/_emulator/calls; echo", WITHIN);
    assert_eq!(calls, [r#"{"counts":{},"calls":[]}"#]);
}

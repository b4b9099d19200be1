//! Emulated machines that speak `AF_VSOCK` with one another, as a parent instance and its enclave do. On the machine that runs
//! the tests nothing opens an `AF_VSOCK` socket, which its hypervisor might answer: unix sockets connect the emulated devices.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

mod files;
mod serial;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::peers::{Peers, plain};
use serial::Serial;

pub use files::Files;

/// The CID by which an enclave reaches its parent instance.
pub const PARENT: u32 = 3;

/// A running guest, gone when the test ends.
pub struct Guest {
    cid: u32,
    machine: Child,
    keyboard: ChildStdin,
    serial: Arc<Serial>,
    device: Arc<Device>,
}

impl Guest {
    /// Starts guests with these CIDs and files; returns when all are up.
    ///
    /// They start together because vhost-device-vsock goes deaf, for good and without a word, for a guest that another one
    /// calls before its driver is there.
    pub fn boot<const N: usize>(guests: [(u32, Files); N]) -> [Self; N] {
        let peers = Peers::install(&["guests"]);
        let device = Arc::new(Device::start(&peers, &guests.each_ref().map(|(cid, _)| *cid)));
        let started = guests.map(|(cid, files)| Self::start(&peers, &device, cid, files));
        for guest in &started {
            guest.wait_for("guest: up", BOOT);
        }
        started
    }

    fn start(peers: &Peers, device: &Arc<Device>, cid: u32, files: Files) -> Self {
        let initramfs = device.path(cid, "cpio");
        fs::write(&initramfs, files.of_system(&peers.path("guests")).archive()).expect("writes");
        let mut machine = plain("qemu-system-x86_64");
        machine
            .args(["-M", "q35,accel=tcg,memory-backend=memory", "-cpu", "max", "-m", MEMORY, "-object"])
            .arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"))
            .arg("-chardev")
            .arg(format!("socket,id=vsock,path={}", device.path(cid, "device").display()))
            .args(["-device", "vhost-user-vsock-pci,chardev=vsock", "-kernel"])
            .arg(peers.path("guests/vmlinuz"))
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(device.path(cid, "log")).expect("a log file"));
        let mut machine = machine.spawn().expect("QEMU starts");
        let keyboard = machine.stdin.take().expect("stdin is piped");
        let serial = Serial::of(machine.stdout.take().expect("stdout is piped"));
        Self { cid, machine, keyboard, serial, device: Arc::clone(device) }
    }

    /// Runs a line of busybox's sh, as root in /tmp, which has to end in time and with 0; what was printed meanwhile.
    pub fn run(&mut self, command: &str, within: Duration) -> Vec<String> {
        let before = self.lines().len();
        if self.keyboard.write_all(format!("{command}\n").as_bytes()).is_err() {
            self.fail(&format!("is gone before {command}"));
        }
        let end = |lines: &[String]| lines.iter().skip(before).position(|line| line.contains(ENDED));
        self.serial.wait(within, |lines| end(lines).is_some());
        let mut lines = self.lines().split_off(before);
        let Some(end) = lines.iter().position(|line| line.contains(ENDED)) else {
            self.fail(&format!("does not end {command}"));
        };
        if !lines[end].ends_with(&format!("{ENDED}0")) {
            self.fail(&format!("fails in {command}"));
        }
        lines.truncate(end);
        lines
    }

    /// Waits until it has printed a line with `text`, and returns that line.
    pub fn wait_for(&self, text: &str, within: Duration) -> String {
        let has = |line: &&String| line.contains(text);
        self.serial.wait(within, |lines| lines.iter().any(|line| has(&line)));
        self.lines().iter().find(has).unwrap_or_else(|| self.fail(&format!("does not print {text}"))).clone()
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.serial.lines()
    }

    /// Connects to a port on which it listens. It sees the host's CID, 2.
    pub fn connect(&self, port: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.device.path(self.cid, "host")).expect("the device listens");
        // In one piece: the device takes what it reads first for all of it.
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).expect("the device reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the guest accepts");
            answer.extend(byte);
        }
        stream
    }

    fn fail(&self, what: &str) -> ! {
        let [machine, device] = [self.device.path(self.cid, "log"), self.device.log()]
            .map(|log| fs::read_to_string(log).unwrap_or_default());
        let printed = self.lines().join("\n");
        panic!(
            "guest {} {what}\nIt printed:\n{printed}\nQEMU: {machine}\nvhost-device-vsock: {device}",
            self.cid
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.machine);
    }
}

/// The device of all guests of a test, through which they reach one another, and the directory with all that is theirs.
struct Device {
    process: Child,
    dir: TempDir,
}

impl Device {
    fn start(peers: &Peers, cids: &[u32]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = peers.command("guests/bin/vhost-device-vsock");
        for cid in cids {
            let [device, host] = ["device", "host"].map(|what| path(dir.path(), *cid, what));
            let vm = format!("guest-cid={cid},socket={},uds-path={}", device.display(), host.display());
            command.args(["--vm", &vm]);
        }
        let log = File::create(dir.path().join("log")).expect("a log file");
        let process = command.stdout(Stdio::null()).stderr(log).spawn().expect("vhost-device-vsock starts");
        let device = Self { process, dir };
        for cid in cids {
            device.wait_for_socket(*cid);
        }
        device
    }

    fn wait_for_socket(&self, cid: u32) {
        for _ in 0..2_000 {
            if self.path(cid, "device").exists() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        panic!("vhost-device-vsock does not listen within ten seconds: {log}");
    }

    fn path(&self, cid: u32, what: &str) -> PathBuf {
        path(self.dir.path(), cid, what)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Of a guest: the socket of its device for QEMU ("device") and for this machine ("host"), its files ("cpio"), QEMU's log
/// ("log").
fn path(dir: &Path, cid: u32, what: &str) -> PathBuf {
    dir.join(format!("{cid}.{what}"))
}

fn end(child: &mut Child) {
    // Already gone is as good.
    let _ = child.kill();
    let _ = child.wait();
}

/// What /init prints after a command, before its status.
const ENDED: &str = "guest: ended with ";
/// It takes 3 seconds, and a busy machine's share.
const BOOT: Duration = Duration::from_mins(2);
/// The broker's debug build takes 60 MB, twice while the kernel unpacks it.
const MEMORY: &str = "512M";

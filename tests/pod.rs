//! Proves: under an OCI runtime, as a kubelet would run them, the containers of deploy/kubernetes do what docs/kubernetes.md says. No
//! capabilities, no new privileges, a runtime's default seccomp profile, a read-only root: the application's user is answered and another is
//! denied; the application can put nothing beside the socket; SIGTERM delivers, and the auditor's job finds the trail sound; after kill -9
//! the next container goes on with the same journal.
//!
//! The root is the image's (`deploy/image/build`) where `KEY_BROKER_ROOTFS` names it; else the program of the tests with its libraries.

#[path = "support/manifests.rs"]
mod manifests;
mod peers;

use std::env;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use manifests::{BROKER, document, list, named};
use peers::{Peers, plain, printed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const APPLICATION: u64 = 1000;
const STORE: &str = "/store";

/// The volumes of a pod, and a root for its containers.
struct Pod {
    dir: tempfile::TempDir,
    root: PathBuf,
    endpoint: String,
    spec: Value,
}

impl Pod {
    fn new(emulator: &Emulator) -> Self {
        Peers::install(&["crun"]);
        let dir = tempfile::tempdir().expect("a folder");
        // Others than root have to pass.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let spec =
            document("kubernetes/deployment/deployment.yaml", "Deployment")["spec"]["template"]["spec"]
                .take();
        let root = env::var_os("KEY_BROKER_ROOTFS").map_or_else(|| root_of_tests(dir.path()), PathBuf::from);
        let pod = Self { root, endpoint: emulator.endpoint_url(), spec, dir };
        for volume in ["key-broker-socket", "key-broker-journal", "store", "intruder"] {
            // As an emptyDir is.
            pod.make(volume, 0o777);
        }
        // As a claim is with fsGroup.
        pod.make("state", 0o2775);
        chown(pod.volume("state"), None, Some(17_890)).expect("root may");
        let base = document("kubernetes/base/config.yaml", "ConfigMap");
        pod.configure("key-broker-config", &base, |_| ());
        pod
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("volumes").join(name)
    }

    fn make(&self, volume: &str, mode: u32) {
        fs::create_dir_all(self.volume(volume)).expect("it is made");
        fs::set_permissions(self.volume(volume), fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// The configuration of the manifests, with the emulator and a folder in place of AWS.
    fn configure(&self, volume: &str, map: &Value, change: impl Fn(&mut toml::Table)) {
        self.make(volume, 0o755);
        let text = |file: &str| map["data"][file].as_str().expect("a file").to_owned();
        let mut settings: toml::Table = toml::from_str(&text("key-broker.toml")).expect("TOML");
        let kms = settings["kms"].as_table_mut().expect("a table");
        kms.remove("session_name");
        for endpoint in ["endpoint_url", "sts_endpoint_url"] {
            kms.insert(endpoint.to_owned(), self.endpoint.clone().into());
        }
        let store = toml::Table::from_iter([("directory".to_owned(), STORE.into())]);
        settings["audit"].as_table_mut().expect("a table").insert("store".to_owned(), store.into());
        // Pods have an address of their own; this is the machine's.
        settings.remove("telemetry");
        change(&mut settings);
        fs::write(self.volume(volume).join("key-broker.toml"), settings.to_string()).expect("writes");
        fs::write(self.volume(volume).join("policy.cedar"), text("policy.cedar")).expect("writes");
    }

    fn socket(&self) -> PathBuf {
        self.volume("key-broker-socket").join("broker.sock")
    }

    /// The broker's container, as the manifest has it.
    fn broker(&self) -> Container {
        let broker = named(&self.spec["initContainers"], BROKER);
        let user = broker["securityContext"]["runAsUser"].as_u64().expect("a user");
        let arguments: Vec<_> = list(&broker["args"]).iter().map(|it| it.as_str().expect("text")).collect();
        let mut mounts: Vec<_> = list(&broker["volumeMounts"]).iter().filter_map(mount).collect();
        mounts.push(("store".to_owned(), STORE.to_owned(), false));
        self.start(BROKER, user, &arguments, &mounts)
    }

    /// A call in a container that has of the application's what the manifest gives it.
    fn call(&self, user: u64) -> Output {
        let application = &self.spec["containers"][0];
        let mounts: Vec<_> = list(&application["volumeMounts"]).iter().filter_map(mount).collect();
        let arguments = [
            "call",
            "generate-data-key",
            "--unix",
            "/run/key-broker/broker.sock",
            "--key-id",
            "alias/orders",
        ];
        self.start("application", user, &arguments, &mounts).end()
    }

    fn start(
        &self,
        name: &str,
        user: u64,
        arguments: &[&str],
        mounts: &[(String, String, bool)],
    ) -> Container {
        let bundle = self.dir.path().join(name);
        fs::create_dir_all(&bundle).expect("it is made");
        let binds = mounts.iter().map(|(volume, target, read_only)| {
            let mode = if *read_only { "ro" } else { "rw" };
            json!({ "destination": target, "type": "bind", "source": self.volume(volume), "options": ["bind", mode] })
        });
        let mut arguments = arguments.to_vec();
        arguments.insert(0, "/key-broker");
        let config = oci(&self.root, user, &arguments, binds.collect());
        fs::write(bundle.join("config.json"), config.to_string()).expect("writes");
        // crun takes a machine with both kinds of control groups for one that it cannot serve: it sees the old one alone.
        let script = "mount --make-rprivate / && { umount /sys/fs/cgroup/unified 2>/dev/null || true; } && \
                      exec crun --cgroup-manager=disabled --root \"$0\" run --bundle \"$1\" \"$2\"";
        let mut command = plain("unshare");
        command
            .args(["--mount", "sh", "-ec", script])
            .arg(self.dir.path().join("state"))
            .arg(&bundle)
            .arg(name);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let status = self.dir.path().join("state").join(name).join("status");
        Container { child, status, bundle }
    }
}

/// Volume, place, and whether it is read-only. There is no token here.
fn mount(mount: &Value) -> Option<(String, String, bool)> {
    let text = |key: &str| mount[key].as_str().expect("text").to_owned();
    let it = (text("name"), text("mountPath"), mount["readOnly"] == true);
    (it.0 != "key-broker-token").then_some(it)
}

/// A container that runs.
struct Container {
    child: Child,
    status: PathBuf,
    bundle: PathBuf,
}

impl Container {
    /// The process in it, as the machine sees it.
    fn pid(&self) -> Pid {
        let status: Value = serde_json::from_slice(&fs::read(&self.status).expect("it runs")).expect("JSON");
        let pid = status["pid"].as_i64().and_then(|it| i32::try_from(it).ok()).and_then(Pid::from_raw);
        pid.expect("a process")
    }

    /// How long after the container was asked for.
    fn wait_for(&mut self, path: &Path) -> Duration {
        for _ in 0..30_000 {
            if path.exists() {
                let made = |path: &Path| -> SystemTime {
                    fs::metadata(path).and_then(|it| it.modified()).expect("it is there")
                };
                let since = made(path).duration_since(made(&self.bundle.join("config.json")));
                return since.expect("later");
            }
            if self.child.try_wait().expect("ours").is_some() {
                let mut said = String::new();
                self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
                panic!("it ended: {said}");
            }
            sleep(Duration::from_millis(1));
        }
        panic!("no {}", path.display());
    }

    /// Once it has ended, which takes no minute.
    fn end(mut self) -> Output {
        for _ in 0..6_000 {
            if self.child.try_wait().expect("ours").is_some() {
                return self.child.wait_with_output().expect("it has ended");
            }
            sleep(Duration::from_millis(10));
        }
        // What fails here leaves nothing behind.
        let _ = kill_process(self.pid(), Signal::KILL);
        panic!("it does not end: {}", text(&self.child.wait_with_output().expect("it is killed")));
    }

    fn signal(self, signal: Signal) -> Output {
        kill_process(self.pid(), signal).expect("it runs");
        self.end()
    }
}

/// What a kubelet asks a runtime for by the manifests' securityContext.
fn oci(root: &Path, user: u64, arguments: &[&str], mut binds: Vec<Value>) -> Value {
    let none: [&str; 0] = [];
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ];
    mounts.append(&mut binds);
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": { "uid": user, "gid": user }, "args": arguments, "cwd": "/", "terminal": false, "noNewPrivileges": true,
            "env": [
                "KEY_BROKER_POD_NAME=orders-0", "KEY_BROKER_POD_NAMESPACE=orders", "KEY_BROKER_NODE_NAME=node",
                "AWS_ACCESS_KEY_ID=AKIATESTEXAMPLE00000", "AWS_SECRET_ACCESS_KEY=test-only", "AWS_EC2_METADATA_DISABLED=true",
            ],
            "capabilities": {
                "bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none,
            },
        },
        "root": { "path": root, "readonly": true },
        "hostname": "orders-0",
        "mounts": mounts,
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": seccomp(),
        },
    })
}

/// The default profile of Podman and CRI-O, for a process without capabilities.
fn seccomp() -> Value {
    let profile =
        fs::read("/usr/share/containers/seccomp.json").expect("golang-github-containers-common has it");
    let profile: Value = serde_json::from_slice(&profile).expect("JSON");
    let here = |rule: &Value| {
        let arches = &rule["includes"]["arches"];
        let elsewhere = arches.is_array() && !list(arches).contains(&json!("amd64"));
        let excluded = list(&rule["excludes"]["arches"]).contains(&json!("amd64"));
        list(&rule["includes"]["caps"]).is_empty() && !elsewhere && !excluded
    };
    let rules = list(&profile["syscalls"]).iter().filter(|rule| here(rule)).map(|rule| {
        let mut rule = rule.clone();
        let fields = rule.as_object_mut().expect("a rule");
        fields.retain(|key, value| {
            ["names", "action", "args", "errnoRet"].contains(&key.as_str()) && !value.is_null()
        });
        rule
    });
    json!({
        "defaultAction": profile["defaultAction"], "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules.collect::<Vec<_>>(),
    })
}

/// The program of the tests, which is not static, with what it is linked to.
fn root_of_tests(dir: &Path) -> PathBuf {
    let (root, program) = (dir.join("root"), env!("CARGO_BIN_EXE_key-broker"));
    let copy = |from: &str, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("it is made");
        // By another process: a file that is open for writing here would be so in what other tests start meanwhile.
        printed(plain("cp").args(["--dereference", from]).arg(&to));
    };
    copy(program, "key-broker");
    let linked = printed(plain("ldd").arg(program));
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(library, library);
    }
    copy("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt");
    root
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("threads")
}

async fn kms() -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("it starts");
    for (alias, spec) in [
        ("alias/orders", KeySpec::SymmetricDefault),
        ("alias/trail", KeySpec::SymmetricDefault),
        ("alias/trail-signing", KeySpec::Rsa2048),
    ] {
        emulator.ensure_key(alias, spec).expect("a key");
    }
    emulator
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN")]
fn two_containers_as_a_pod_has_them() {
    let threads = runtime();
    let emulator = threads.block_on(kms());
    let pod = Pod::new(&emulator);
    let mut broker = pod.broker();
    let ready = broker.wait_for(&pod.socket());
    let status =
        fs::read_to_string(format!("/proc/{}/status", broker.pid().as_raw_nonzero())).expect("it runs");
    let field = |name: &str| -> &str {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim_start_matches(':').trim()
    };
    println!("container to socket {} ms, resident {}", ready.as_millis(), field("VmRSS"));
    assert_eq!((field("CapBnd"), field("NoNewPrivs"), field("Seccomp")), ("0000000000000000", "1", "2"));

    let served = pod.call(APPLICATION);
    assert!(served.status.success(), "{}", text(&served));
    let denied = pod.call(1001);
    assert_eq!(denied.status.code(), Some(1));
    assert!(text(&denied).contains("DENIED_BY_POLICY"), "{}", text(&denied));

    // kill -9: the next container takes over socket and journal.
    assert!(!broker.signal(Signal::KILL).status.success());
    assert!(!pod.call(APPLICATION).status.success(), "nobody serves");
    fs::remove_file(pod.socket()).expect("it was left");
    let mut next = pod.broker();
    next.wait_for(&pod.socket());
    assert!(pod.call(APPLICATION).status.success());
    let ended = next.signal(Signal::TERM);
    assert!(ended.status.success(), "{}", text(&ended));

    // The auditor's job: as in deploy/chart, on a claim.
    let mounts = [
        ("key-broker-config", "/etc/key-broker", true),
        ("state", "/var/lib/key-broker", false),
        ("store", STORE, true),
    ];
    let mounts = mounts.map(|(volume, target, mode)| (volume.to_owned(), target.to_owned(), mode));
    let arguments = "audit verify --config /etc/key-broker/key-broker.toml --all-trails \
                     --record-to /var/lib/key-broker/reader-records.jsonl --no-journal --resume /var/lib/key-broker/verified.jsonl --json";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let verified = pod.start("auditor", 17_890, &arguments, &mounts).end();
    assert!(verified.status.success(), "{}", text(&verified));
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    let bucket = said.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()).expect("JSON");
    let bucket = &bucket["bucket"];
    assert_eq!((&bucket["verdict"], &bucket["trails"]), (&json!("sound"), &json!({ "sound": 1 })), "{said}");
    assert_eq!(bucket["states"], json!({ "closed": 1 }), "one journal, one trail, with its end");
    for file in ["reader-records.jsonl", "verified.jsonl"] {
        assert!(pod.volume("state").join(file).exists(), "{file}");
    }
}

/// An application that would put a socket of its own beside the broker's cannot.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN")]
fn the_application_can_put_nothing_beside_the_socket() {
    let threads = runtime();
    let emulator = threads.block_on(kms());
    let pod = Pod::new(&emulator);
    let base = document("kubernetes/base/config.yaml", "ConfigMap");
    pod.configure("intruding", &base, |settings| {
        settings["audit"]["journal_dir"] = "/intruder/journal".into();
    });
    let application = &pod.spec["containers"][0];
    let mut mounts: Vec<_> = list(&application["volumeMounts"]).iter().filter_map(mount).collect();
    for (volume, target) in [("intruding", "/etc/key-broker"), ("intruder", "/intruder"), ("store", STORE)] {
        mounts.push((volume.to_owned(), target.to_owned(), false));
    }
    let arguments = ["serve", "--config", "/etc/key-broker/key-broker.toml"];
    let refused = pod.start("application", APPLICATION, &arguments, &mounts).end();
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
    assert!(text(&refused).contains("Read-only file system"), "{}", text(&refused));
    assert_eq!(fs::read_dir(pod.volume("key-broker-socket")).expect("it is there").count(), 0);
}

//! The real program, as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The broker's program.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_key-broker"))
}

/// The program of the emulator of KMS, of a package of its own.
pub fn kms_emulator() -> PathBuf {
    built("kms-emulator", &["-p", "kms-emulator"])
}

/// The client's demonstration for enclaves, of a package of its own.
pub fn enclave_demo() -> PathBuf {
    built("enclave-demo", &["-p", "key-broker-client", "--features", "enclave"])
}

/// Builds what cargo is told to, and returns a binary of it beside the running test: `target/<profile>/<name>`.
fn built(name: &str, what: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--target-dir"]);
    build.arg(profile.parent().expect("the target directory"));
    build.args(what);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let outcome = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(outcome.success(), "{name} does not build");
    profile.join(name)
}

/// A running `key-broker`, killed when the test ends.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `serve` and waits until it says that it serves.
    pub fn serve(config: &Path) -> Self {
        let process = Self::spawn(
            &["serve", "--config", config.to_str().expect("a path")],
            config.parent().expect("a directory"),
        );
        process.wait_for_log("\"serving\"");
        process
    }

    /// Starts `dev` in `dir` and waits until it serves.
    pub fn dev(dir: &Path) -> Self {
        let process = Self::spawn(&["dev", "--dir", dir.to_str().expect("a path")], dir);
        process.wait_for_log("\"serving\"");
        process
    }

    /// Starts `serve` with another filter of log lines.
    pub fn spawn_with_log_filter(config: &Path, filter: &str) -> Self {
        let arguments = ["serve", "--config", config.to_str().expect("a path")];
        Self::start(&arguments, config.parent().expect("a directory"), filter)
    }

    /// Starts any command; its log lines go to `log` in `dir`.
    pub fn spawn(arguments: &[&str], dir: &Path) -> Self {
        Self::start(arguments, dir, DEFAULT_LOG_FILTER)
    }

    fn start(arguments: &[&str], dir: &Path, log_filter: &str) -> Self {
        Self::run(Command::new(binary()).args(arguments).stdout(Stdio::null()), dir, log_filter)
    }

    /// The command that [`Process::serve`] runs, for a test that changes its surroundings.
    pub fn serve_command(config: &Path) -> Command {
        let mut command = Command::new(binary());
        command.args(["serve", "--config"]).arg(config).stdout(Stdio::null());
        command
    }

    /// Runs such a command and waits until it serves.
    pub fn serve_by(mut command: Command, config: &Path) -> Self {
        let process = Self::run(&mut command, config.parent().expect("a directory"), DEFAULT_LOG_FILTER);
        process.wait_for_log("\"serving\"");
        process
    }

    /// Runs such a command with credentials from where its own variables say, and waits until it serves.
    pub fn serve_by_its_credentials(command: Command, config: &Path) -> Self {
        let process = Self::by_its_credentials(command, config);
        process.wait_for_log("\"serving\"");
        process
    }

    /// Starts `serve` with credentials from where these variables say, and nothing of AWS's beside them.
    pub fn serve_with_variables(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Self::serve_command(config);
        command.envs(variables.iter().copied());
        Self::by_its_credentials(command, config)
    }

    fn by_its_credentials(mut command: Command, config: &Path) -> Self {
        let dir = config.parent().expect("a directory");
        let log = dir.join("log");
        let own: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        let is_own = |name: &str| own.iter().any(|own| *own == *name);
        let nothing = dir.join("no-such-file");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") && !is_own(name)) {
            command.env_remove(name);
        }
        for name in
            ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"].into_iter().filter(|name| !is_own(name))
        {
            command.env(name, &nothing);
        }
        command.env("KEY_BROKER_LOG", DEFAULT_LOG_FILTER).stderr(fs::File::create(&log).expect("a log file"));
        Self { child: command.spawn().expect("key-broker starts"), log }
    }

    /// Starts `serve` with no memory to lock, as an ordinary user: root may lock what it wants. Returns its user, too.
    pub fn serve_as_ordinary_user(config: &Path) -> (Self, u32) {
        let dir = config.parent().expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l 0 && exec \"$0\" serve --config \"$1\""]);
        let mut user = rustix::process::getuid().as_raw();
        if user == 0 {
            user = NOBODY;
            // The build directory may be root's alone.
            let copy = dir.join("key-broker");
            // By another process: a file that is open for writing here would be so in whatever other tests start meanwhile, and could
            // not be run.
            let copied = Command::new("cp").arg(binary()).arg(&copy).status();
            assert!(copied.is_ok_and(|status| status.success()), "the program cannot be copied");
            for entry in fs::read_dir(dir).expect("a directory") {
                chown(entry.expect("an entry").path(), Some(user), Some(user)).expect("root may");
            }
            chown(dir, Some(user), Some(user)).expect("root may");
            command.arg(copy).uid(user).gid(user);
        } else {
            command.arg(binary());
        }
        let process = Self::run(command.arg(config).stdout(Stdio::null()), dir, DEFAULT_LOG_FILTER);
        process.wait_for_log("\"serving\"");
        (process, user)
    }

    fn run(command: &mut Command, dir: &Path, log_filter: &str) -> Self {
        let log = dir.join("log");
        let child = command
            .env("KEY_BROKER_LOG", log_filter)
            .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
            .env("AWS_SECRET_ACCESS_KEY", "test-only")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stderr(fs::File::create(&log).expect("a log file"))
            .spawn()
            .expect("key-broker starts");
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it prints, if its command said that this is wanted.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout is piped, and taken once")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    pub fn wait_for_log(&self, text: &str) {
        for _ in 0..2_000 {
            if BufReader::new(fs::File::open(&self.log).expect("a log"))
                .lines()
                .any(|line| line.is_ok_and(|line| line.contains(text)))
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no {text} in the log within ten seconds:\n{}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be asked")
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it can be waited for")
    }

    /// kill -9, and wait until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is what most tests want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a configuration for `serve` before an emulator at `endpoint`, with everything in `dir`.
pub fn write_config(dir: &Path, endpoint: &str, more: &str) -> PathBuf {
    let text = format!(
        r#"
[listen]
unix = {{ path = "broker.sock", mode = "0600" }}
[kms]
region = "us-west-2"
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
[policy]
file = "policy.cedar"
[audit]
journal_dir = "journal"
{more}
"#
    );
    fs::write(dir.join("policy.cedar"), super::ALL_WORKLOADS).expect("writes");
    let path = dir.join("key-broker.toml");
    fs::write(&path, text).expect("writes");
    path
}

const DEFAULT_LOG_FILTER: &str = "warn,key_broker=info";
/// The user of files that belong to nobody, on every Linux.
pub const NOBODY: u32 = 65_534;

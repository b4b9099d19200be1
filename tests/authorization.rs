//! Proves, with processes of two users on the unix socket: the kernel's word decides who calls, the configuration which workload
//! that is, and policy what it gets; both are recorded as fully when they are refused.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use support::process::{NOBODY, Process, binary};
use support::site::Site;

const POLICY: &str = r#"
    permit(principal == Workload::"spiffe://example.org/orders", action == Action::"GenerateDataKey", resource);
    permit(principal == Workload::"unix:uid/0", action == Action::"GenerateRandom", resource);
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "setuid"), ignore = "needs root: CAP_SETUID, to become other users")]
async fn two_users_get_what_is_theirs() {
    let site = Site::new().await;
    let config = site.config(&format!(
        "[[identity.unix]]\nuid = {NOBODY}\ngid = {NOBODY}\nprincipal = \"spiffe://example.org/orders\"\n"
    ));
    let text = fs::read_to_string(&config).expect("reads").replace("mode = \"0600\"", "mode = \"0666\"");
    fs::write(&config, text).expect("writes");
    fs::write(site.dir.path().join("policy.cedar"), POLICY).expect("writes");
    // The user needs a way to socket and program.
    fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let program = site.dir.path().join("program");
    fs::copy(binary(), &program).expect("copies");
    let broker = Process::serve(&config);
    let socket = site.socket();
    let call = |uid: u32, gid: u32, arguments: &'static [&'static str]| {
        let (program, socket) = (program.clone(), socket.clone());
        async move {
            let run = move || as_user(&program, uid, gid, &socket, arguments);
            tokio::task::spawn_blocking(run).await.expect("no panic")
        }
    };
    let generate = &["generate-data-key", "--key-id", "alias/dev"];
    let random = &["generate-random", "--number-of-bytes", "8"];
    for (uid, gid, arguments, permitted) in [
        (NOBODY, NOBODY, &generate[..], true),
        (NOBODY, NOBODY, random, false),
        (0, 0, generate, false),
        (0, 0, random, true),
        // The same user in another group is another workload.
        (NOBODY, 7, generate, false),
        (4_242, 4_242, generate, false),
    ] {
        let output = call(uid, gid, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), permitted, "{uid} {gid} {arguments:?}: {said}");
        assert!(permitted || said.contains("DENIED_BY_POLICY") || said.contains("does not permit"), "{said}");
    }
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    let records = support::trail::records(&site.store()).activity;
    let told: Vec<_> = records.iter().map(brief).collect();
    let orders = "spiffe://example.org/orders";
    let nobody = u64::from(NOBODY);
    assert_eq!(
        told,
        [
            (orders, nobody, nobody, "GenerateDataKey", "Allowed", 1),
            (orders, nobody, nobody, "GenerateRandom", "Denied", 0),
            ("unix:uid/0", 0, 0, "GenerateDataKey", "Denied", 0),
            ("unix:uid/0", 0, 0, "GenerateRandom", "Allowed", 1),
            ("unix:uid/65534", nobody, 7, "GenerateDataKey", "Denied", 0),
            ("unix:uid/4242", 4_242, 4_242, "GenerateDataKey", "Denied", 0),
        ]
    );
    for record in &records {
        assert_eq!(record["userIdentity"]["type"], "UnixWorkload");
        assert!(record["userIdentity"]["details"]["pid"].as_u64().is_some_and(|pid| pid > 0), "{record}");
        assert!(!record["requestParameters"].is_null(), "as fully for a no as for a yes: {record}");
    }
}

fn as_user(program: &Path, uid: u32, gid: u32, socket: &Path, arguments: &[&str]) -> Output {
    let mut call = Command::new(program);
    call.arg("call").args(arguments).arg("--unix").arg(socket).uid(uid).gid(gid);
    call.output().expect("runs")
}

fn brief(record: &Value) -> (&str, u64, u64, &str, &str, usize) {
    let details = &record["userIdentity"]["details"];
    (
        record["userIdentity"]["principalId"].as_str().expect("a name"),
        details["uid"].as_u64().expect("a uid"),
        details["gid"].as_u64().expect("a gid"),
        record["eventName"].as_str().expect("an action"),
        record["additionalEventData"]["outcome"].as_str().expect("an outcome"),
        record["additionalEventData"]["policy"]["determiningPolicies"].as_array().expect("policies").len(),
    )
}

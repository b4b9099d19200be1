//! Proves, with the real program: `audit.stdout` copies every record, as it is in the trail, a line each; whoever does not read
//! stdout, or closes it, holds up no call and takes nothing from the trail.

mod support;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use rustix::process::Signal;
use support::process::Process;
use support::site::Site;

/// A broker that copies its records to a pipe.
async fn broker() -> (Site, Process, Client) {
    let site = Site::new().await;
    let config = site.config("stdout = true");
    let mut command = Process::serve_command(&config);
    command.stdout(Stdio::piped());
    let broker = Process::serve_by(command, &config);
    let client = Client::unix(site.socket()).await.expect("listens");
    (site, broker, client)
}

async fn call(client: &Client, times: usize) {
    for n in 0..times {
        let request = GenerateDataKey::aes_256("alias/dev").context("tenant", (n % 7).to_string());
        client.generate_data_key(request).await.expect("a key");
    }
}

fn stop(broker: Process) {
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdout_has_every_record_as_the_trail_has_it() {
    let (site, mut broker, client) = broker().await;
    let mut stdout = broker.stdout();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        text
    });
    for _ in 0..5 {
        call(&client, 50).await;
        // Over several deliveries, which remove what is copied.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop(broker);
    let text = reader.join().expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    let distinct: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!(lines.len(), distinct.len(), "each once");
    let delivered = site.delivered();
    assert!(delivered.texts.len() >= 250);
    for record in &delivered.texts {
        assert!(distinct.contains(record.as_str()), "{record}");
    }
    assert_eq!(delivered.texts.len(), lines.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_stdout_holds_up_nobody() {
    let (site, mut broker, client) = broker().await;
    // A pipe takes 64 KiB.
    let unread = broker.stdout();
    call(&client, 500).await;
    stop(broker);
    drop(unread);
    assert!(site.delivered().texts.len() >= 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stdout_that_is_closed_ends_the_copy_and_nothing_else() {
    let (site, mut broker, client) = broker().await;
    drop(broker.stdout());
    call(&client, 10).await;
    broker.wait_for_log("no longer copied to stdout");
    call(&client, 100).await;
    stop(broker);
    assert!(site.delivered().texts.len() >= 110);
}

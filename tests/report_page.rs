//! Proves, in a real browser: the page of `audit verify --all-trails --html` shows its pictures with no network, asks nobody for anything, and no
//! name that somebody else chose acts in it.

mod peers;
mod support;

use std::fs;
use std::path::Path;

use peers::Peers;
use serde_json::Value;
use support::dev_folder::{command, text};
use support::tampered::{Copy, plain};
use support::timed::BUCKET;

/// The program's page of a bucket in which somebody has put an object whose name is markup, in Chromium.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_browser_shows_the_page_and_asks_nobody() {
    let copy = plain().copy();
    let beside = copy.path(&copy.digests()[0]);
    fs::write(beside.with_file_name(HOSTILE), "x").expect("writes");
    let page = copy.dir.path().join("page.html");
    write_page(&copy, &page);
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.matches("<svg").count() >= 4 && html.contains("Denials by principal"), "{html}");
    assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;"), "{html}");

    Peers::install(&["chromium"]);
    // The browser's log tells of what a page asks.
    let other = copy.dir.path().join("other.html");
    fs::write(&other, "<!DOCTYPE html><title>x</title><img src=\"http://127.0.0.1:9/x\">").expect("writes");
    let (_, asked) = browsed(&other, copy.dir.path(), "--dump-dom");
    assert_eq!(asked, ["http://127.0.0.1:9/x"]);

    let (shown, asked) = browsed(&page, copy.dir.path(), "--dump-dom");
    assert!(shown.contains("<h1>") && shown.matches("<rect ").count() >= 20, "{shown}");
    for made in ["<script", "<img", "<iframe"] {
        assert!(!shown.contains(made), "{made}: {shown}");
    }
    assert_eq!(asked, Vec::<String>::new());
    let picture = copy.dir.path().join("page.png");
    browsed(&page, copy.dir.path(), &format!("--screenshot={}", picture.display()));
    let png = fs::read(&picture).expect("a screenshot");
    assert!(png.starts_with(b"\x89PNG") && png.len() > 20_000, "{} bytes", png.len());
    if let Some(keep) = std::env::var_os("KEY_BROKER_KEEP_PAGE") {
        fs::copy(&picture, Path::new(&keep).join("page.png")).expect("copies");
        fs::copy(&page, Path::new(&keep).join("page.html")).expect("copies");
    }
}

/// Opens a page in Chromium: what that printed, and the addresses that the page asked something of.
fn browsed(page: &Path, dir: &Path, what: &str) -> (String, Vec<String>) {
    let log = dir.join("net.json");
    let mut browser = peers::plain("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    // The browser itself finds nobody to ask.
    browser.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
    browser.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    browser.arg(format!("--log-net-log={}", log.display()));
    browser.args(["--virtual-time-budget=3000", "--window-size=1200,2400", what]);
    let ran = peers::output(browser.arg(format!("file://{}", page.display())));
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    (text(&ran.stdout), asked_by_the_page(&log))
}

fn write_page(copy: &Copy, page: &Path) {
    let key = copy.dir.path().join("public.pem");
    fs::write(&key, copy.base.site.public_key().to_pem()).expect("writes");
    let mut program = command();
    program.args(["audit", "verify", "--all-trails", "--html"]).arg(page);
    program.arg("--store").arg(copy.dir.path().join("store")).args(["--bucket", BUCKET]);
    program.args(["--account", "111122223333", "--region", "us-west-2", "--public-key"]).arg(&key);
    let said = program.output().expect("runs");
    assert!(said.status.code().is_some_and(|code| code < 3), "{}", text(&said.stderr));
}

/// What the browser asks for itself has no origin as its initiator.
fn asked_by_the_page(log: &Path) -> Vec<String> {
    let log: Value = serde_json::from_slice(&fs::read(log).expect("a log")).expect("JSON");
    let events = log["events"].as_array().expect("events").iter().map(|event| &event["params"]);
    let of_page =
        events.filter(|asked| asked["initiator"].as_str().is_some_and(|who| who != "not an origin"));
    of_page.filter_map(|asked| asked["url"].as_str()).map(str::to_owned).collect()
}

const HOSTILE: &str = "<img src=x onerror=alert(1)>.json.gz";

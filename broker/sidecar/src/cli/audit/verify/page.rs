//! The verdict on many trails as one page of HTML, to be kept or sent: it refers to nothing else, and runs nothing.

use std::fmt::Write as _;

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{BucketReport, Report, Verdict};

use super::super::output::plain;
use super::{counts_of, findings_of};

/// The page: the bucket's verdict, a row for each trail, then what was found. `folder` is where they are.
pub(super) fn page_of(
    folder: &str,
    head: &[&str],
    rows: &[Vec<String>],
    trails: &[(String, Report)],
    bucket: &BucketReport,
) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Trails in {folder}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n\
         <p>Trails in {folder}, looked at {}.</p>\n",
        match bucket.verdict {
            Verdict::Sound => "Sound",
            Verdict::Unsound => "Not sound",
            Verdict::CannotTell => "Cannot tell",
        },
        record_time(SystemClock.now()),
        folder = escaped(folder),
    );
    let _ = writeln!(page, "<p>{}</p>\n<table>", counts_of(trails.len(), bucket));
    let cells = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|cell| format!("<{name}>{}</{name}>", escaped(cell))).collect::<Vec<_>>().concat()
    };
    let _ = writeln!(page, "<tr>{}</tr>", cells("th", &mut head.iter().copied()));
    for row in rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
    }
    page.push_str("</table>\n");
    let mut add = |title: &str, findings: &str| {
        if !findings.is_empty() {
            let _ = writeln!(page, "<h2>{}</h2>\n<pre>{}</pre>", escaped(title), escaped(findings));
        }
    };
    add("The bucket as a whole", &findings_of(&bucket.findings, &bucket.counts));
    for (name, report) in trails {
        add(&plain(name), &findings_of(&report.findings, &report.counts));
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Text that may come from a workload, as text of a page.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

const STYLE: &str = "body{font:15px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
    td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}pre{white-space:pre-wrap;background:#f4f4f4;padding:.6em}";

#[cfg(test)]
mod tests {
    //! A page shows what workloads wrote and does not let it act.

    use key_broker_trail::verify::{Finding, FindingKind, Place, Severity};

    use super::*;

    #[test]
    fn nothing_on_a_page_is_anything_but_text() {
        let words = "<script>alert(1)</script>\" onload='x' \u{202e}&amp;";
        let finding = Finding {
            kind: FindingKind::ForeignObject,
            severity: Severity::Note,
            place: Place::default(),
            words: words.into(),
        };
        let report = Report { findings: vec![finding], ..Report::default() };
        let rows = [vec!["<i>".to_owned(), "2".to_owned()]];
        let page =
            page_of("trail/<u>", &["TRAIL", "N"], &rows, &[("<s>".into(), report)], &BucketReport::default());
        let known = [
            "<!DOCTYPE",
            "<html",
            "<head",
            "<meta",
            "<title",
            "<style",
            "<body",
            "<h1",
            "<h2",
            "<p>",
            "<table",
            "<tr",
            "<th>",
            "<td>",
            "<pre>",
            "</",
        ];
        let tags = page.match_indices('<').map(|(at, _)| &page[at..]);
        assert_eq!(tags.filter(|tag| !known.iter().any(|known| tag.starts_with(known))).count(), 0, "{page}");
        assert!(
            page.contains(
                "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; \\u{202e}&amp;amp;"
            ),
            "{page}"
        );
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{page}");
    }
}

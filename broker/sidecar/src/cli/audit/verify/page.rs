//! The verdict on many trails as one self-contained HTML page, without scripts, to keep or send.

use std::fmt::Write as _;

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{BucketReport, Report, Verdict};

use super::markup::{escaped, lines};
use super::pictures::{self, Counts, pictures_of};
use super::{counts_of, findings_of};

/// The contents of the page.
pub(super) struct Page<'a> {
    /// The folder of the trails.
    pub(super) folder: &'a str,
    /// The table of the trails.
    pub(super) head: &'a [&'a str],
    pub(super) rows: &'a [Vec<String>],
    pub(super) trails: &'a [(String, Report)],
    pub(super) bucket: &'a BucketReport,
    /// How what KMS answered was used.
    pub(super) uses: &'a Counts,
}

impl Page<'_> {
    /// The bucket's verdict, findings, charts, and a row for each trail.
    pub(super) fn to_html(&self) -> String {
        let Self { folder, trails, bucket, uses, .. } = self;
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Trails in {folder}</title>\n<style>{STYLE}{}</style>\n</head>\n<body>\n<h1>{}</h1>\n\
             <p>Trails in {folder}, looked at {}.</p>\n<p>{}</p>\n",
            pictures::STYLE,
            match bucket.verdict {
                Verdict::Sound => "Sound",
                Verdict::Unsound => "Not sound",
                Verdict::CannotTell => "Cannot tell",
            },
            record_time(SystemClock.now()),
            counts_of(trails.len(), bucket),
            folder = escaped(folder),
        );
        page.push_str(&findings("The bucket as a whole", &findings_of(&bucket.findings, &bucket.counts)));
        page.push_str(&pictures_of(uses, trails));
        page.push_str("<h2>Trails</h2>\n");
        self.add_table(&mut page);
        for (name, report) in *trails {
            page.push_str(&findings(name, &findings_of(&report.findings, &report.counts)));
        }
        page.push_str("</body>\n</html>\n");
        page
    }

    fn add_table(&self, page: &mut String) {
        let cells = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
            cells.map(|cell| format!("<{name}>{}</{name}>", escaped(cell))).collect::<Vec<_>>().concat()
        };
        let _ = writeln!(page, "<table>\n<tr>{}</tr>", cells("th", &mut self.head.iter().copied()));
        for row in self.rows {
            let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
        }
        page.push_str("</table>\n");
    }
}

fn findings(title: &str, findings: &str) -> String {
    if findings.is_empty() {
        return String::new();
    }
    format!("<h2>{}</h2>\n<pre>{}</pre>\n", escaped(title), lines(findings))
}

const STYLE: &str = "body{font:15px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
    td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}pre{white-space:pre-wrap;background:#f4f4f4;padding:.6em}";

#[cfg(test)]
mod tests {
    //! A page shows what workloads wrote and does not let it act.

    use key_broker_trail::verify::{Finding, FindingKind, Place, Severity, Uses};
    use time::OffsetDateTime;

    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\" onload='x' \u{202e}&amp;]]>--><svg/onload=x>";
    const AS_TEXT: &str = "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; \\u{202e}&amp;amp;";

    fn page() -> String {
        let finding = Finding {
            kind: FindingKind::ForeignObject,
            severity: Severity::Note,
            place: Place::default(),
            words: HOSTILE.into(),
        };
        let from = Some(OffsetDateTime::UNIX_EPOCH);
        let report = Report { findings: vec![finding], from, to: from, ..Report::default() };
        let uses = (0, HOSTILE.to_owned(), Some(HOSTILE.to_owned()));
        let counted = Uses { hits: 3, misses: 1, denials: 2, kms_calls: 1 };
        Page {
            folder: HOSTILE,
            head: &["TRAIL", "N"],
            rows: &[vec![HOSTILE.to_owned(), "2".to_owned()]],
            trails: &[(HOSTILE.into(), report)],
            bucket: &BucketReport::default(),
            uses: &[(uses, counted)].into(),
        }
        .to_html()
    }

    /// Whatever a caller chooses (a principal, a key's name, a trail's, words of a finding) is text: no tag and no attribute is made of it.
    #[test]
    fn nothing_on_a_page_is_anything_but_text() {
        let page = page();
        let known = [
            "!DOCTYPE",
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "p",
            "table",
            "tr",
            "th",
            "td",
            "pre",
            "figure",
            "figcaption",
            "svg",
            "line",
            "text",
            "rect",
            "ul",
            "li",
            "b",
        ];
        for (at, _) in page.match_indices('<') {
            let tag = page[at + 1..].trim_start_matches('/');
            let name = tag.split(|c: char| !c.is_ascii_alphanumeric() && c != '!').next().unwrap_or_default();
            assert!(known.contains(&name), "{name}: {page}");
            let whole = tag.split_once('>').expect("it ends").0;
            assert!(!whole.contains("onload") && !whole.contains("alert"), "{whole}");
        }
        // Folder (twice), row, trail, finding; principal and key in legends and columns of their pictures.
        assert!(page.matches(AS_TEXT).count() >= 5 + 6, "{page}");
    }

    /// The page is whole without a network: it names no address, loads nothing and runs nothing.
    #[test]
    fn a_page_refers_to_nothing() {
        let page = page();
        for reference in [
            "http:",
            "https:",
            "//",
            "src=",
            "href=",
            "url(",
            "@import",
            "<script",
            "<link",
            "<iframe",
            "javascript:",
        ] {
            assert!(!page.contains(reference), "{reference}: {page}");
        }
    }

    /// Every element is closed, in order: an XML parser would take the body.
    #[test]
    fn a_page_is_well_formed() {
        let page = page();
        let mut open = Vec::new();
        for (at, _) in page.match_indices('<') {
            let tag = page[at + 1..].split_once('>').expect("it ends").0;
            let name = tag.split(' ').next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed), "{page}"),
                None if name == "!DOCTYPE" || name == "meta" => {}
                None => open.push(name),
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        }
        assert!(open.is_empty(), "{open:?}");
    }
}

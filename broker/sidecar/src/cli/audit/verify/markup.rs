//! Escapes text for an HTML page.

use super::super::output::plain;

/// Text that may come from a workload.
pub(super) fn escaped(text: &str) -> String {
    lines(&plain(text))
}

/// Lines of it, each of which is fit for a terminal already.
pub(super) fn lines(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

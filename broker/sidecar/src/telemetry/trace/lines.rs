//! Log lines of what runs within a call name its trace, without any of them saying so; and a line before which others of its kind were
//! left out tells how many.

use std::fmt::{self, Write as _};

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, TraceId};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::log_limit::LogLimit;

/// Whether the log may show this. Below `warn`, the lines of the AWS SDK and of HTTP libraries hold what they send: they are never
/// shown. Nor are spans: what a line needs of them is its trace id.
pub(crate) fn may_show(line: &Metadata<'_>) -> bool {
    line.is_event() && (line.target().starts_with("key_broker") || *line.level() <= LevelFilter::WARN)
}

/// Lines as `lines` formats them, with notes where there are some.
pub(crate) struct Noted<F> {
    pub(crate) lines: F,
    /// Adds a note to a whole line.
    pub(crate) add: fn(&mut String, &Note) -> fmt::Result,
    /// Knows which lines were left out.
    pub(crate) limit: LogLimit,
}

/// What is added to a line.
pub(crate) enum Note {
    /// The trace of what the line is about.
    Trace(TraceId),
    /// How many lines of its kind were left out before it.
    LeftOut(u64),
}

impl<S, N, F> FormatEvent<S, N> for Noted<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let left_out = self.limit.take_left_out(event.metadata());
        let left_out = (left_out > 0).then_some(Note::LeftOut(left_out));
        let trace = current().map(Note::Trace);
        if trace.is_none() && left_out.is_none() {
            return self.lines.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        trace.iter().chain(&left_out).try_for_each(|note| (self.add)(&mut line, note))?;
        writer.write_str(&line)
    }
}

/// The trace of what runs here.
fn current() -> Option<TraceId> {
    Context::map_current(|context| Some(context.span().span_context().trace_id()))
        .filter(|id| *id != TraceId::INVALID)
}

/// To a line of text.
pub(crate) fn to_text(line: &mut String, note: &Note) -> fmt::Result {
    line.truncate(line.trim_end().len());
    match note {
        Note::Trace(id) => writeln!(line, " trace_id={id}"),
        Note::LeftOut(lines) => writeln!(line, " lines_left_out={lines}"),
    }
}

/// To an object of JSON.
pub(crate) fn to_json(line: &mut String, note: &Note) -> fmt::Result {
    line.truncate(line.rfind('}').unwrap_or(line.len()));
    match note {
        Note::Trace(id) => writeln!(line, ",\"trace_id\":\"{id}\"}}"),
        Note::LeftOut(lines) => writeln!(line, ",\"lines_left_out\":{lines}}}"),
    }
}

//! Log lines of what runs within a call name its trace, without any of them saying so.

use std::fmt::{self, Write as _};

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, TraceId};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines as `lines` formats them, with `trace_id` where there is one.
pub(crate) struct Traced<F> {
    pub(crate) lines: F,
    /// Adds it to a whole line.
    pub(crate) add: fn(&mut String, TraceId) -> fmt::Result,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
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
        let Some(trace_id) = current() else { return self.lines.format_event(context, writer, event) };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        (self.add)(&mut line, trace_id)?;
        writer.write_str(&line)
    }
}

/// The trace of what runs here.
fn current() -> Option<TraceId> {
    Context::map_current(|context| Some(context.span().span_context().trace_id()))
        .filter(|id| *id != TraceId::INVALID)
}

/// To a line of text.
pub(crate) fn to_text(line: &mut String, trace_id: TraceId) -> fmt::Result {
    line.truncate(line.trim_end().len());
    writeln!(line, " trace_id={trace_id}")
}

/// To an object of JSON.
pub(crate) fn to_json(line: &mut String, trace_id: TraceId) -> fmt::Result {
    line.truncate(line.rfind('}').unwrap_or(line.len()));
    writeln!(line, ",\"trace_id\":\"{trace_id}\"}}")
}

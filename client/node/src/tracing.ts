import { Metadata } from "@grpc/grpc-js";

// Optional: where it is not installed, there is no trace to hand on.
const installed = import("@opentelemetry/api").catch(() => undefined);

/** The caller's trace, handed on to the broker: `traceparent` and `tracestate`, and nothing else of OpenTelemetry. */
export async function traced(): Promise<Metadata> {
  // A call waits for the broker until its deadline.
  const metadata = new Metadata({ waitForReady: true });
  const api = await installed;
  const span = api?.trace.getSpanContext(api.context.active());
  if (api !== undefined && span !== undefined && api.isSpanContextValid(span)) {
    const flags = (span.traceFlags & 0xff).toString(16).padStart(2, "0");
    metadata.set("traceparent", `00-${span.traceId}-${span.spanId}-${flags}`);
    const state = span.traceState?.serialize();
    if (state) metadata.set("tracestate", state);
  }
  return metadata;
}

// Calls a key-broker as an instrumented service in Go would: OpenTelemetry's SDK and otelgrpc, at their defaults.
//
//	caller unix:<path> PLAN
//
// PLAN and what is printed are as in ../python-otel/caller.py, of the kinds `generate` and `fresh` one after another, and with no span around
// them.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
)

type calls struct {
	Kind  string
	Times int
	KeyID string `json:"key_id"`
}

type line struct {
	Kind         string `json:"kind"`
	Code         string `json:"code"`
	RequestID    string `json:"requestId"`
	KMSRequestID string `json:"kmsRequestId,omitempty"`
	TraceID      string `json:"traceId"`
	SpanID       string `json:"spanId"`
}

func main() {
	ctx := context.Background()
	var plan []calls
	must(json.Unmarshal([]byte(os.Args[2]), &plan))
	exporter, err := otlptracegrpc.New(ctx)
	must(err)
	traces := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	otel.SetTracerProvider(traces)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithStatsHandler(seeing{}))
	must(err)
	broker := pb.NewKeyBrokerClient(connection)
	out := json.NewEncoder(os.Stdout)
	for _, step := range plan {
		for range step.Times {
			must(out.Encode(generate(ctx, broker, step)))
		}
	}
	must(connection.Close())
	must(traces.Shutdown(ctx))
}

func generate(ctx context.Context, broker pb.KeyBrokerClient, step calls) line {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key := step.KeyID
	if key == "" {
		key = "alias/dev"
	}
	request := &pb.GenerateDataKeyRequest{
		KeyId:             key,
		Length:            &pb.GenerateDataKeyRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_256},
		EncryptionContext: map[string]string{"tenant": "acme"},
		Reuse:             &pb.Reuse{Fresh: step.Kind == "fresh"},
	}
	var span trace.SpanContext
	var headers metadata.MD
	_, err := broker.GenerateDataKey(context.WithValue(ctx, seen, &span), request, grpc.Header(&headers))
	return line{
		Kind:         step.Kind,
		Code:         map[bool]string{true: "OK", false: status.Code(err).String()}[err == nil],
		RequestID:    first(headers, "x-request-id"),
		KMSRequestID: first(headers, "x-amzn-requestid"),
		TraceID:      span.TraceID().String(),
		SpanID:       span.SpanID().String(),
	}
}

func first(headers metadata.MD, name string) string {
	for _, value := range headers.Get(name) {
		return value
	}
	return ""
}

// seeing comes after the instrumentation, and notes the span that it made for the call.
type seeing struct{}

type place struct{}

var seen place

func (seeing) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	*ctx.Value(seen).(*trace.SpanContext) = trace.SpanContextFromContext(ctx)
	return ctx
}

func (seeing) HandleRPC(context.Context, stats.RPCStats)                         {}
func (seeing) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (seeing) HandleConn(context.Context, stats.ConnStats)                       {}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

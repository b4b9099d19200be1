package keybroker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// Proves what the client promises, against a broker: `key-broker dev`, or any whose KEY_BROKER_ADDRESS is set. See
// tests/client_packages.rs.

const key = "alias/dev"

var acme = map[string]string{"tenant": "acme"}

func broker(t *testing.T, options ...Option) *Client {
	t.Helper()
	if os.Getenv(addressVariable) == "" {
		t.Fatal("start `cargo dev`, and set KEY_BROKER_ADDRESS=unix:.key-broker-dev/broker.sock")
	}
	client, err := Connect(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// must is a value, or the end of the test.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// refused is the error of a call that has to fail.
func refused[T any](t *testing.T, _ T, err error) *Error {
	t.Helper()
	var explained *Error
	if !errors.As(err, &explained) {
		t.Fatalf("no *Error: %v", err)
	}
	return explained
}

func TestAMessageComesBack(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	message := must(broker.Encrypt(ctx, []byte("hello"), key, acme))
	if got := must(broker.Decrypt(ctx, message, acme)); string(got) != "hello" || bytes.Contains(message, got) {
		t.Fatalf("%q", got)
	}
	opened := must(broker.DecryptMessage(ctx, message, nil, WithKeyID(key)))
	if opened.EncryptionContext["tenant"] != "acme" || !strings.HasPrefix(opened.KeyID, "arn:aws:kms:") || opened.Provenance.KMSRequestID == "" {
		t.Fatalf("%+v", opened)
	}
	for _, size := range []int{0, 1, 3 << 20} {
		got := must(broker.Decrypt(ctx, must(broker.Encrypt(ctx, make([]byte, size), key, nil)), nil))
		if len(got) != size {
			t.Fatalf("%d bytes of %d", len(got), size)
		}
	}
}

func TestAnAlteredMessageAndAnotherContextAreRefused(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	message := must(broker.Encrypt(ctx, []byte("hello"), key, acme))
	_, err := broker.Decrypt(ctx, message, map[string]string{"tenant": "other"})
	if refused := refused(t, 0, err); refused.Reason != "ENCRYPTION_CONTEXT_MISMATCH" {
		t.Fatal(refused)
	}
	message[len(message)-1] ^= 1
	_, err = broker.Decrypt(ctx, message, nil)
	if refused := refused(t, 0, err); refused.Reason != "INVALID_MESSAGE" {
		t.Fatal(refused)
	}
}

func TestAStreamComesBack(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	plaintext := bytes.Repeat([]byte("0123456789"), 500_000)
	var message, opened bytes.Buffer
	length := WithPlaintextLength(uint64(len(plaintext)))
	if err := broker.EncryptStream(ctx, &message, bytes.NewReader(plaintext), key, acme, length); err != nil {
		t.Fatal(err)
	}
	facts := must(broker.DecryptStream(ctx, &opened, &message, acme))
	if !bytes.Equal(opened.Bytes(), plaintext) || facts.EncryptionContext["tenant"] != "acme" {
		t.Fatalf("%d bytes, %+v", opened.Len(), facts)
	}
}

func TestAStreamWhoseSourceOrSinkFailsHasNoEnd(t *testing.T) {
	broker, gone := broker(t), errors.New("the disk is gone")
	source := io.MultiReader(strings.NewReader("first"), iotest.ErrReader(gone))
	if err := broker.EncryptStream(t.Context(), io.Discard, source, key, nil); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	full, sink := io.Pipe()
	full.CloseWithError(gone)
	if err := broker.EncryptStream(t.Context(), sink, strings.NewReader("first"), key, nil); !errors.Is(err, gone) {
		t.Fatal(err)
	}
}

func TestADataKeyIsErasedWhenItIsClosed(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	key := must(broker.DataKey(ctx, key, acme))
	plaintext := key.Plaintext
	if len(plaintext) != 32 || bytes.Equal(plaintext, make([]byte, 32)) {
		t.Fatal("no data key")
	}
	again := must(broker.DecryptDataKey(ctx, key.CiphertextBlob, key.KeyID, acme))
	if !bytes.Equal(again.Plaintext, plaintext) {
		t.Fatal("another data key")
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key)} {
		if strings.Contains(text, fmt.Sprint(plaintext[0], plaintext[1])) || !strings.HasPrefix(text, "keybroker.DataKey") {
			t.Fatal(text)
		}
	}
	key.Close()
	if !bytes.Equal(plaintext, make([]byte, 32)) || key.Plaintext != nil {
		t.Fatal("it is not erased")
	}
}

func TestLengthsAndReuseOfDataKeys(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	for _, length := range []uint32{16, 32, 100} {
		if key := must(broker.DataKey(ctx, key, nil, WithLength(length))); len(key.Plaintext) != int(length) {
			t.Fatal(len(key.Plaintext))
		}
	}
	fresh := WithReuse(Reuse{Fresh: true})
	one, other := must(broker.DataKey(ctx, key, acme, fresh)), must(broker.DataKey(ctx, key, acme, fresh))
	if bytes.Equal(one.Plaintext, other.Plaintext) || one.Provenance.Cached {
		t.Fatal("not fresh")
	}
	must(broker.DataKey(ctx, key, acme))
	if !must(broker.DataKey(ctx, key, acme, WithUse(2, 100))).Provenance.Cached {
		t.Fatal("not reused")
	}
	if described := must(broker.DescribeKey(ctx, key)); described.KeyState != "Enabled" {
		t.Fatalf("%+v", described)
	}
}

func TestValuesAreEncryptedUnderTheKeyItself(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	sealed := must(broker.EncryptValue(ctx, []byte("password"), key, acme))
	if got := must(broker.DecryptValue(ctx, sealed.CiphertextBlob, sealed.KeyID, acme)); string(got) != "password" {
		t.Fatalf("%q", got)
	}
	other := map[string]string{"tenant": "other"}
	moved := must(broker.ReEncrypt(ctx, sealed.CiphertextBlob, Bound{sealed.KeyID, acme}, Bound{key, other}))
	if got := must(broker.DecryptValue(ctx, moved.CiphertextBlob, moved.KeyID, other)); string(got) != "password" {
		t.Fatalf("%q", got)
	}
	_, err := broker.DecryptValue(ctx, moved.CiphertextBlob, moved.KeyID, acme)
	if altered := refused(t, 0, err); altered.Reason != "INVALID_CIPHERTEXT" {
		t.Fatal(altered)
	}
	only := must(broker.DataKeyWithoutPlaintext(ctx, key, acme, WithLength(16)))
	if again := must(broker.DecryptDataKey(ctx, only.CiphertextBlob, only.KeyID, acme)); len(again.Plaintext) != 16 {
		t.Fatal(again)
	}
}

func TestAPrivateKeyIsErasedWhenItsPairIsClosed(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	for _, spec := range []KeyPairSpec{P256, RSA2048} {
		pair := must(broker.DataKeyPair(ctx, key, acme, spec))
		private := must(x509.ParsePKCS8PrivateKey(pair.PrivateKey)).(crypto.Signer)
		if public := must(x509.MarshalPKIXPublicKey(private.Public())); !bytes.Equal(public, pair.PublicKey) {
			t.Fatal("another public key")
		}
		again := must(broker.DecryptDataKey(ctx, pair.PrivateKeyCiphertextBlob, pair.KeyID, acme))
		plaintext := pair.PrivateKey
		if !bytes.Equal(again.Plaintext, plaintext) {
			t.Fatal("another private key")
		}
		if text := fmt.Sprintf("%v %#v", pair, pair); !strings.HasPrefix(text, "keybroker.DataKeyPair of arn:") || len(text) > 300 {
			t.Fatal(text)
		}
		pair.Close()
		if !bytes.Equal(plaintext, make([]byte, len(plaintext))) || pair.PrivateKey != nil {
			t.Fatal("it is not erased")
		}
	}
	if sealed := must(broker.DataKeyPairWithoutPlaintext(ctx, key, acme, P384)); len(sealed.PublicKey) == 0 || len(sealed.PrivateKeyCiphertextBlob) == 0 {
		t.Fatal(sealed)
	}
}

func TestErrorsSayWhatAProgramNeeds(t *testing.T) {
	broker, ctx := broker(t), t.Context()
	_, err := broker.DecryptDataKey(ctx, []byte("no ciphertext of KMS"), key, nil)
	altered := refused(t, 0, err)
	if altered.Code != codes.InvalidArgument || altered.Reason != "INVALID_CIPHERTEXT" || altered.Domain != "kms.amazonaws.com" ||
		altered.RequestID == "" || altered.KMSRequestID == "" || altered.Denied() || altered.Retryable() {
		t.Fatalf("%#v", altered)
	}
	if !strings.Contains(altered.Error(), altered.RequestID) {
		t.Fatal(altered)
	}
	_, err = broker.DataKey(ctx, "alias/forbidden", nil)
	if denied := refused(t, 0, err); !denied.Denied() || denied.Retryable() || denied.Reason != "DENIED_BY_POLICY" || denied.Domain != "keybroker" {
		t.Fatalf("%#v", denied)
	}
	// The broker's KMS has to throttle GenerateRandom.
	_, err = broker.Random(ctx, 16)
	if throttled := refused(t, 0, err); !throttled.Retryable() || throttled.Denied() || throttled.RetryDelay <= 0 || throttled.Reason != "KMS_THROTTLED" {
		t.Fatalf("%#v", throttled)
	}
}

func TestABrokerThatIsNotThereIsWaitedForUntilTheDeadline(t *testing.T) {
	nobody := broker(t, WithAddress("unix:"+filepath.Join(t.TempDir(), "none.sock")), WithDeadline(500*time.Millisecond))
	begun := time.Now()
	_, err := nobody.DataKey(t.Context(), key, nil)
	late := refused(t, 0, err)
	if took := time.Since(begun); took < 400*time.Millisecond || took > 5*time.Second {
		t.Fatal(took)
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(late.Message, "none.sock") {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nobody.DataKey(ctx, key, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestTheCurrentSpanIsNamed(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	sent, _ := metadata.FromOutgoingContext(traced(trace.ContextWithSpanContext(t.Context(), span)))
	if got := sent.Get("traceparent"); len(got) != 1 || got[0] != "00-01000000000000000000000000000000-0200000000000000-01" {
		t.Fatal(sent)
	}
	if sent, _ := metadata.FromOutgoingContext(traced(t.Context())); len(sent) != 0 {
		t.Fatal(sent)
	}
}

func TestTwoBrokersAndTwoLanguagesExchangeMessages(t *testing.T) {
	folder, exchange := os.Getenv("KEY_BROKER_TEST_TLS"), os.Getenv("KEY_BROKER_TEST_EXCHANGE")
	if folder == "" {
		t.Skip("no second broker, with TLS, is told of")
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(folder, "ca.crt"))))
	certificate := must(tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")))
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: authorities, ServerName: "broker.test", MinVersion: tls.VersionTLS13}
	here, ctx := broker(t), t.Context()
	other := broker(t, WithAddress(os.Getenv("KEY_BROKER_TEST_TLS_ADDRESS")), WithTLS(config))
	// In a trace, which the broker has to find.
	caller := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: must(trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")), SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})
	if described := must(other.DescribeKey(trace.ContextWithSpanContext(ctx, caller), key)); described.KeyState != "Enabled" {
		t.Fatalf("%+v", described)
	}
	if got := must(other.Decrypt(ctx, must(here.Encrypt(ctx, []byte("over"), key, acme)), acme)); string(got) != "over" {
		t.Fatalf("%q", got)
	}
	if got := must(here.Decrypt(ctx, must(other.Encrypt(ctx, []byte("and back"), key, acme)), acme)); string(got) != "and back" {
		t.Fatalf("%q", got)
	}
	if got := must(here.Decrypt(ctx, must(os.ReadFile(filepath.Join(exchange, "from-rust"))), acme)); string(got) != "from Rust" {
		t.Fatalf("%q", got)
	}
	if err := os.WriteFile(filepath.Join(exchange, "to-rust"), must(here.Encrypt(ctx, []byte("to Rust"), key, acme)), 0o600); err != nil {
		t.Fatal(err)
	}
}

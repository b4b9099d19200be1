package keybroker

import (
	"context"
	"crypto/tls"
	"time"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// Client is a connection to the broker, for any number of goroutines.
type Client struct {
	connection *grpc.ClientConn
	broker     pb.KeyBrokerClient
	target     string
	deadline   time.Duration
}

// Connect makes a client. The connection is made with the first call, and again whenever it broke off.
func Connect(options ...Option) (*Client, error) {
	chosen := settings{deadline: DefaultDeadline}
	for _, option := range options {
		option(&chosen)
	}
	target, err := target(chosen.address, chosen.tls != nil)
	if err != nil {
		return nil, err
	}
	connection, err := grpc.NewClient(target, dialOptions(chosen.tls)...)
	if err != nil {
		return nil, err
	}
	return &Client{connection, pb.NewKeyBrokerClient(connection), target, chosen.deadline}, nil
}

// A call waits for the broker until its deadline, and goes again if the connection broke off before its answer came. gRPC's own retries
// heed grpc-retry-pushback-ms, by which the broker says when.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "keybroker.v1.KeyBroker"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

// maxAnswer is the largest answer: a message of 3 MiB with its framing.
const maxAnswer = 4 << 20

func dialOptions(config *tls.Config) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// The first try comes at once, and none later than half a second: the broker is beside this process.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Key material never goes by a proxy, whatever HTTPS_PROXY says.
		grpc.WithNoProxy(),
		grpc.WithUserAgent("key-broker-go/" + Version),
	}
}

// Close closes the connection. Calls in flight fail.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Encrypt encrypts a message of at most 3 MiB; what is longer goes by EncryptStream. The encryption context is bound to the message,
// which has it in clear. What comes back is a message of the AWS Encryption SDK.
func (c *Client) Encrypt(ctx context.Context, plaintext []byte, keyID string, encryptionContext map[string]string, options ...CallOption) ([]byte, error) {
	chosen := chosen(options)
	request := &pb.EncryptMessageRequest{
		KeyId: keyID, EncryptionContext: encryptionContext, Plaintext: plaintext, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
	}
	reply, err := unary(ctx, c, c.broker.EncryptMessage, request)
	return reply.GetMessage(), err
}

// Decrypt decrypts a message of Encrypt, or of an AWS Encryption SDK. Its encryption context must have all that is given here.
func (c *Client) Decrypt(ctx context.Context, message []byte, encryptionContext map[string]string, options ...CallOption) ([]byte, error) {
	opened, err := c.DecryptMessage(ctx, message, encryptionContext, options...)
	if err != nil {
		return nil, err
	}
	return opened.Plaintext, nil
}

// DecryptMessage is Decrypt with all of the message's encryption context, which is authentic.
func (c *Client) DecryptMessage(ctx context.Context, message []byte, encryptionContext map[string]string, options ...CallOption) (*DecryptedMessage, error) {
	chosen := chosen(options)
	request := &pb.DecryptMessageRequest{
		Message: message, EncryptionContext: encryptionContext, KeyId: chosen.keyID, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
	}
	reply, err := unary(ctx, c, c.broker.DecryptMessage, request)
	if err != nil {
		return nil, err
	}
	return &DecryptedMessage{reply.GetPlaintext(), reply.GetEncryptionContext(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// DataKey returns a data key, to encrypt with in this process. Close it.
func (c *Client) DataKey(ctx context.Context, keyID string, encryptionContext map[string]string, options ...CallOption) (*DataKey, error) {
	chosen := chosen(options)
	request := &pb.GenerateDataKeyRequest{
		KeyId: keyID, EncryptionContext: encryptionContext, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
		Use: &pb.Use{Messages: chosen.messages, Bytes: chosen.nbytes},
	}
	switch chosen.dataKeyLength {
	case 32:
		request.Length = &pb.GenerateDataKeyRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_256}
	case 16:
		request.Length = &pb.GenerateDataKeyRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_128}
	default:
		request.Length = &pb.GenerateDataKeyRequest_NumberOfBytes{NumberOfBytes: chosen.dataKeyLength}
	}
	reply, err := unary(ctx, c, c.broker.GenerateDataKey, request)
	if err != nil {
		return nil, err
	}
	return &DataKey{reply.GetPlaintext(), reply.GetCiphertextBlob(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// DecryptDataKey returns the same data key again, or the private key of a data key pair. Give its KeyID, not an alias, and its encryption
// context.
func (c *Client) DecryptDataKey(ctx context.Context, ciphertextBlob []byte, keyID string, encryptionContext map[string]string, options ...CallOption) (*DataKey, error) {
	reply, err := c.decryptBlob(ctx, ciphertextBlob, keyID, encryptionContext, options)
	if err != nil {
		return nil, err
	}
	return &DataKey{reply.GetPlaintext(), ciphertextBlob, reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// Random returns random bytes made by KMS, 1 to 1,024.
func (c *Client) Random(ctx context.Context, numberOfBytes uint32) ([]byte, error) {
	reply, err := unary(ctx, c, c.broker.GenerateRandom, &pb.GenerateRandomRequest{NumberOfBytes: numberOfBytes})
	return reply.GetPlaintext(), err
}

// DescribeKey says what KMS knows about a key.
func (c *Client) DescribeKey(ctx context.Context, keyID string) (*KeyDescription, error) {
	reply, err := unary(ctx, c, c.broker.DescribeKey, &pb.DescribeKeyRequest{KeyId: keyID})
	if err != nil {
		return nil, err
	}
	return &KeyDescription{
		ARN: reply.GetArn(), KeySpec: reply.GetKeySpec(), KeyUsage: reply.GetKeyUsage(), KeyState: reply.GetKeyState(),
		MultiRegion: reply.GetMultiRegion(), Origin: reply.GetOrigin(), KeyManager: reply.GetKeyManager(), Description: reply.GetDescription(),
	}, nil
}

// unary makes one call. Its reply is nil if it failed, and every getter of a nil reply is empty.
func unary[Q, R any](ctx context.Context, c *Client, method func(context.Context, *Q, ...grpc.CallOption) (*R, error), request *Q) (*R, error) {
	ctx, cancel := bounded(ctx, c.deadline)
	defer cancel()
	for begun := 1; ; begun++ {
		var header, trailer metadata.MD
		reply, err := method(traced(ctx), request, grpc.Header(&header), grpc.Trailer(&trailer))
		if err == nil {
			return reply, nil
		}
		explained := c.explained(err, header, trailer)
		if !explained.brokeOff() || begun == beginnings {
			return nil, explained
		}
	}
}

// beginnings is how often a call may begin anew whose connection broke off while its answer was coming: gRPC's own retries end where that
// begins.
const beginnings = 3

// bounded gives a context a deadline that has none.
func bounded(ctx context.Context, deadline time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, deadline)
}

// traced hands the caller's trace on to the broker: traceparent and tracestate, and nothing else of OpenTelemetry.
func traced(ctx context.Context) context.Context {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	for name, value := range carrier {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	return ctx
}

package keybroker

import (
	"crypto/tls"
	"time"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
)

const (
	// DefaultDeadline is how long a call may take whose context has no deadline.
	DefaultDeadline = 10 * time.Second
	// StreamDeadline is the same for a stream.
	StreamDeadline = 10 * time.Minute
)

// Option is a choice for a [Client].
type Option func(*settings)

type settings struct {
	address  string
	tls      *tls.Config
	deadline time.Duration
}

// WithAddress says where the broker is: unix:PATH, 127.0.0.1:PORT, or HOST:PORT with TLS. Without it, the environment variable
// KEY_BROKER_ADDRESS does, else it is at [DefaultAddress].
func WithAddress(address string) Option {
	return func(s *settings) { s.address = address }
}

// WithTLS connects by mutual TLS: config has the client's certificate, and the authorities whose certificate the broker may show.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithDeadline is in place of [DefaultDeadline]. A context with a deadline of its own comes first.
func WithDeadline(deadline time.Duration) Option {
	return func(s *settings) { s.deadline = deadline }
}

// CallOption is a choice for one call. A call passes over those that say nothing of it.
type CallOption func(*call)

type call struct {
	keyID            string
	reuse            *pb.Reuse
	grantTokens      []string
	plaintextLength  *uint64
	beforeSignature  bool
	dataKeyLength    uint32
	messages, nbytes uint64
}

func chosen(options []CallOption) *call {
	made := &call{dataKeyLength: 32, messages: 1}
	for _, option := range options {
		option(made)
	}
	return made
}

// WithKeyID decrypts messages of this KMS key only.
func WithKeyID(keyID string) CallOption {
	return func(c *call) { c.keyID = keyID }
}

// Reuse tightens the broker's bounds of reuse for one call; never widens them. 0 means as configured.
type Reuse struct {
	MaxAge      time.Duration
	MaxMessages uint64
	MaxBytes    uint64
	// Fresh asks for a data key that nobody else has had or will get: one call to KMS.
	Fresh bool
}

// WithReuse tightens the bounds of the data key.
func WithReuse(reuse Reuse) CallOption {
	return func(c *call) {
		c.reuse = &pb.Reuse{
			// Whole seconds, and never 0, which would widen it.
			MaxAgeSeconds: uint32((reuse.MaxAge + time.Second - 1) / time.Second),
			MaxMessages:   reuse.MaxMessages,
			MaxBytes:      reuse.MaxBytes,
			Fresh:         reuse.Fresh,
		}
	}
}

// WithGrantTokens passes KMS grant tokens on.
func WithGrantTokens(tokens ...string) CallOption {
	return func(c *call) { c.grantTokens = tokens }
}

// WithPlaintextLength says how many bytes [Client.EncryptStream] will read. Without it, the message takes a call to KMS of its own.
func WithPlaintextLength(length uint64) CallOption {
	return func(c *call) { c.plaintextLength = &length }
}

// WithReleaseBeforeSignature lets [Client.DecryptStream] take messages that are signed, too: nothing of the plaintext may be used before
// it has returned without an error.
func WithReleaseBeforeSignature() CallOption {
	return func(c *call) { c.beforeSignature = true }
}

// WithLength is the length of a data key in bytes, in place of 32.
func WithLength(length uint32) CallOption {
	return func(c *call) { c.dataKeyLength = length }
}

// WithUse declares what a data key will encrypt, in place of one message: so many, of so many bytes together.
func WithUse(messages, bytes uint64) CallOption {
	return func(c *call) { c.messages, c.nbytes = messages, bytes }
}

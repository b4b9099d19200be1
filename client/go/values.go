package keybroker

import (
	"time"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
)

// Provenance says where an answer came from.
type Provenance struct {
	// Cached tells whether an earlier call to KMS had made it.
	Cached bool
	// KMSRequestID is the requestID of the call to KMS behind it, as AWS CloudTrail has it.
	KMSRequestID string
	// MintedAt is when KMS answered.
	MintedAt time.Time
}

func provenance(sent *pb.Provenance) Provenance {
	return Provenance{
		Cached:       sent.GetServedFrom() == pb.Provenance_SOURCE_CACHE,
		KMSRequestID: sent.GetKmsRequestId(),
		MintedAt:     sent.GetMintedAt().AsTime(),
	}
}

// DecryptedMessage is a message that was decrypted, and what it was bound to.
type DecryptedMessage struct {
	// Plaintext is nil for a stream, which wrote it.
	Plaintext []byte
	// EncryptionContext is all of the message's, authentic.
	EncryptionContext map[string]string
	// KeyID is the ARN of the KMS key that decrypted its data key.
	KeyID      string
	Provenance Provenance
}

// DataKey is a data key, for what is too large to be sent to the broker. Close it: that erases it.
//
// Others may have the same data key, and so may an earlier call: take a random nonce for each message, never a counter.
//
// What is erased is Plaintext, which is where the message was decoded to. The buffer in which gRPC received it is not: it goes back to a
// pool, and stays in memory until something else is put there. What must not be in this process at all is what Encrypt is for.
type DataKey struct {
	// Plaintext is the data key; nil after Close. Copies of it are not erased.
	Plaintext []byte
	// CiphertextBlob is the data key encrypted under the KMS key: keep it, and KeyID, beside what the data key encrypts.
	CiphertextBlob []byte
	// KeyID is the ARN of the KMS key.
	KeyID      string
	Provenance Provenance
}

// Close erases the data key. It never fails.
func (k *DataKey) Close() error {
	clear(k.Plaintext)
	k.Plaintext = nil
	return nil
}

// String keeps the data key out of what is printed.
func (k *DataKey) String() string {
	return "keybroker.DataKey of " + k.KeyID
}

// GoString does so, too, for %#v.
func (k *DataKey) GoString() string {
	return k.String()
}

// KeyDescription is what KMS knows about a key. Values as in the AWS KMS API reference, KeyMetadata.
type KeyDescription struct {
	ARN         string
	KeySpec     string
	KeyUsage    string
	KeyState    string
	MultiRegion bool
	Origin      string
	KeyManager  string
	Description string
}

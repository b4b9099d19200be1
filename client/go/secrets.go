package keybroker

import (
	"context"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
)

// Ciphertext is what KMS encrypted directly under a key.
type Ciphertext struct {
	// CiphertextBlob is what KMS answered, at most 6,144 bytes.
	CiphertextBlob []byte
	// KeyID is the ARN of the KMS key: keep it beside CiphertextBlob.
	KeyID      string
	Provenance Provenance
}

// SealedDataKeyPair is a data key pair whose private key is encrypted.
type SealedDataKeyPair struct {
	// PrivateKeyCiphertextBlob is the private key encrypted under the KMS key, for DecryptDataKey: keep it, and KeyID.
	PrivateKeyCiphertextBlob []byte
	// PublicKey is SubjectPublicKeyInfo (RFC 5280) in DER, for [crypto/x509.ParsePKIXPublicKey].
	PublicKey []byte
	// KeyID is the ARN of the KMS key.
	KeyID      string
	Provenance Provenance
}

// DataKeyPair is an asymmetric data key pair. Close it: that erases the private key, as of a [DataKey].
type DataKeyPair struct {
	SealedDataKeyPair
	// PrivateKey is PKCS #8 (RFC 5958) in DER, for [crypto/x509.ParsePKCS8PrivateKey]; nil after Close. Copies of it are not erased.
	PrivateKey []byte
}

// Close erases the private key. It never fails.
func (p *DataKeyPair) Close() error {
	clear(p.PrivateKey)
	p.PrivateKey = nil
	return nil
}

// String keeps the private key out of what is printed.
func (p *DataKeyPair) String() string {
	return "keybroker.DataKeyPair of " + p.KeyID
}

// GoString does so, too, for %#v.
func (p *DataKeyPair) GoString() string {
	return p.String()
}

// KeyPairSpec is the kind of a data key pair.
type KeyPairSpec = pb.KeyPairSpec

// The kinds that KMS makes.
const (
	RSA2048   = pb.KeyPairSpec_KEY_PAIR_SPEC_RSA_2048
	RSA3072   = pb.KeyPairSpec_KEY_PAIR_SPEC_RSA_3072
	RSA4096   = pb.KeyPairSpec_KEY_PAIR_SPEC_RSA_4096
	P256      = pb.KeyPairSpec_KEY_PAIR_SPEC_ECC_NIST_P256
	P384      = pb.KeyPairSpec_KEY_PAIR_SPEC_ECC_NIST_P384
	P521      = pb.KeyPairSpec_KEY_PAIR_SPEC_ECC_NIST_P521
	SECP256k1 = pb.KeyPairSpec_KEY_PAIR_SPEC_ECC_SECG_P256K1
)

// EncryptValue encrypts 1 to 4,096 bytes directly under the KMS key: a password, a token. Every call goes to KMS: Encrypt is faster and
// cheaper for many. DecryptValue reverses it.
func (c *Client) EncryptValue(ctx context.Context, plaintext []byte, keyID string, encryptionContext map[string]string, options ...CallOption) (*Ciphertext, error) {
	request := &pb.EncryptRequest{
		KeyId: keyID, Plaintext: plaintext, EncryptionContext: encryptionContext, GrantTokens: chosen(options).grantTokens,
	}
	reply, err := unary(ctx, c, c.broker.Encrypt, request)
	if err != nil {
		return nil, err
	}
	return &Ciphertext{reply.GetCiphertextBlob(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// DecryptValue decrypts a ciphertext of EncryptValue or ReEncrypt. Give its KeyID, not an alias, and exactly its encryption context.
func (c *Client) DecryptValue(ctx context.Context, ciphertextBlob []byte, keyID string, encryptionContext map[string]string, options ...CallOption) ([]byte, error) {
	reply, err := c.decryptBlob(ctx, ciphertextBlob, keyID, encryptionContext, options)
	return reply.GetPlaintext(), err
}

// Bound is a ciphertext's KMS key and its encryption context.
type Bound struct {
	KeyID             string
	EncryptionContext map[string]string
}

// ReEncrypt encrypts a KMS ciphertext anew, under another key or encryption context: of EncryptValue, or of a data key. Its plaintext
// never leaves KMS.
func (c *Client) ReEncrypt(ctx context.Context, ciphertextBlob []byte, source, destination Bound, options ...CallOption) (*Ciphertext, error) {
	request := &pb.ReEncryptRequest{
		CiphertextBlob: ciphertextBlob, SourceKeyId: source.KeyID, SourceEncryptionContext: source.EncryptionContext,
		DestinationKeyId: destination.KeyID, DestinationEncryptionContext: destination.EncryptionContext,
		GrantTokens: chosen(options).grantTokens,
	}
	reply, err := unary(ctx, c, c.broker.ReEncrypt, request)
	if err != nil {
		return nil, err
	}
	return &Ciphertext{reply.GetCiphertextBlob(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// DataKeyWithoutPlaintext returns a data key in encrypted form only, for somebody who may decrypt it later, with DecryptDataKey.
func (c *Client) DataKeyWithoutPlaintext(ctx context.Context, keyID string, encryptionContext map[string]string, options ...CallOption) (*Ciphertext, error) {
	chosen := chosen(options)
	request := &pb.GenerateDataKeyWithoutPlaintextRequest{
		KeyId: keyID, EncryptionContext: encryptionContext, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
		Use: &pb.Use{Messages: chosen.messages, Bytes: chosen.nbytes},
	}
	switch chosen.dataKeyLength {
	case 32:
		request.Length = &pb.GenerateDataKeyWithoutPlaintextRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_256}
	case 16:
		request.Length = &pb.GenerateDataKeyWithoutPlaintextRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_128}
	default:
		request.Length = &pb.GenerateDataKeyWithoutPlaintextRequest_NumberOfBytes{NumberOfBytes: chosen.dataKeyLength}
	}
	reply, err := unary(ctx, c, c.broker.GenerateDataKeyWithoutPlaintext, request)
	if err != nil {
		return nil, err
	}
	return &Ciphertext{reply.GetCiphertextBlob(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// DataKeyPair returns a new asymmetric data key pair. Close it. Pairs are never cached.
func (c *Client) DataKeyPair(ctx context.Context, keyID string, encryptionContext map[string]string, spec KeyPairSpec, options ...CallOption) (*DataKeyPair, error) {
	request := &pb.GenerateDataKeyPairRequest{
		KeyId: keyID, KeyPairSpec: spec, EncryptionContext: encryptionContext, GrantTokens: chosen(options).grantTokens,
	}
	reply, err := unary(ctx, c, c.broker.GenerateDataKeyPair, request)
	if err != nil {
		return nil, err
	}
	sealed := SealedDataKeyPair{reply.GetPrivateKeyCiphertextBlob(), reply.GetPublicKey(), reply.GetKeyId(), provenance(reply.GetProvenance())}
	return &DataKeyPair{sealed, reply.GetPrivateKeyPlaintext()}, nil
}

// DataKeyPairWithoutPlaintext is DataKeyPair with the private key in encrypted form only, for somebody who may decrypt it later.
func (c *Client) DataKeyPairWithoutPlaintext(ctx context.Context, keyID string, encryptionContext map[string]string, spec KeyPairSpec, options ...CallOption) (*SealedDataKeyPair, error) {
	request := &pb.GenerateDataKeyPairWithoutPlaintextRequest{
		KeyId: keyID, KeyPairSpec: spec, EncryptionContext: encryptionContext, GrantTokens: chosen(options).grantTokens,
	}
	reply, err := unary(ctx, c, c.broker.GenerateDataKeyPairWithoutPlaintext, request)
	if err != nil {
		return nil, err
	}
	return &SealedDataKeyPair{reply.GetPrivateKeyCiphertextBlob(), reply.GetPublicKey(), reply.GetKeyId(), provenance(reply.GetProvenance())}, nil
}

// decryptBlob asks for what KMS encrypted.
func (c *Client) decryptBlob(ctx context.Context, ciphertextBlob []byte, keyID string, encryptionContext map[string]string, options []CallOption) (*pb.DecryptResponse, error) {
	chosen := chosen(options)
	return unary(ctx, c, c.broker.Decrypt, &pb.DecryptRequest{
		CiphertextBlob: ciphertextBlob, KeyId: keyID, EncryptionContext: encryptionContext, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
	})
}

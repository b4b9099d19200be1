// Package keybroker encrypts and decrypts with AWS KMS through the key-broker beside this process, which needs no AWS credentials.
//
//	broker, err := keybroker.Connect()
//	message, err := broker.Encrypt(ctx, []byte("hello"), "alias/dev", map[string]string{"tenant": "acme"})
//	plaintext, err := broker.Decrypt(ctx, message, map[string]string{"tenant": "acme"})
//
// Package keybrokerpb has the messages of the contract, for calls that have no method here.
package keybroker

// Version of this module. Releases of all clients and of the broker have the same.
const Version = "0.1.0"

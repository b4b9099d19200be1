// Opens and seals files with the AWS Encryption SDK for Go, for ../../message_peers.rs: the plan, and what is printed, are those of
// ../encryption-sdk/client.py.
//
//	encryption-sdk-go PLAN.json
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	mpl "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygenerated"
	mpltypes "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygeneratedtypes"
	esdk "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygenerated"
	esdktypes "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygeneratedtypes"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// As its model names them.
var suites = map[string]mpltypes.ESDKAlgorithmSuiteId{
	"ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY":            mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmHkdfSha512CommitKey,
	"ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384": mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmHkdfSha512CommitKeyEcdsaP384,
	"ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA256":            mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmIv12Tag16HkdfSha256,
	"ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384": mpltypes.ESDKAlgorithmSuiteIdAlgAes256GcmIv12Tag16HkdfSha384EcdsaP384,
}

type plan struct {
	Keys []string `json:"keys"`
	Open []string `json:"open"`
	Seal []wish   `json:"seal"`
}

type wish struct {
	Plaintext   string            `json:"plaintext"`
	To          string            `json:"to"`
	Suite       string            `json:"suite"`
	Context     map[string]string `json:"context"`
	FrameLength int64             `json:"frame_length"`
	Committing  bool              `json:"committing"`
}

func main() {
	log.SetFlags(0)
	var asked plan
	check(json.Unmarshal(read(os.Args[1]), &asked))
	ring := keyring(asked.Keys)
	said := json.NewEncoder(os.Stdout)
	for _, path := range asked.Open {
		sdk := client(mpltypes.ESDKCommitmentPolicyRequireEncryptRequireDecrypt)
		opened, err := sdk.Decrypt(context.Background(), esdktypes.DecryptInput{Ciphertext: read(path), Keyring: ring})
		check(err)
		check(os.WriteFile(path+".opened", opened.Plaintext, 0o600))
		check(said.Encode(map[string]any{"opened": path, "suite": name(opened.AlgorithmSuiteId), "context": opened.EncryptionContext}))
	}
	for _, wish := range asked.Seal {
		policy := mpltypes.ESDKCommitmentPolicyForbidEncryptAllowDecrypt
		if wish.Committing {
			policy = mpltypes.ESDKCommitmentPolicyRequireEncryptRequireDecrypt
		}
		suite := suites[wish.Suite]
		sealed, err := client(policy).Encrypt(context.Background(), esdktypes.EncryptInput{
			Plaintext:         read(wish.Plaintext),
			AlgorithmSuiteId:  &suite,
			EncryptionContext: wish.Context,
			FrameLength:       &wish.FrameLength,
			Keyring:           ring,
		})
		check(err)
		check(os.WriteFile(wish.To, sealed.Ciphertext, 0o600))
		check(said.Encode(map[string]any{"sealed": wish.To}))
	}
}

func keyring(keys []string) mpltypes.IKeyring {
	// AWS_ENDPOINT_URL_KMS says where it is.
	settings, err := config.LoadDefaultConfig(context.Background())
	check(err)
	providers, err := mpl.NewClient(mpltypes.MaterialProvidersConfig{})
	check(err)
	var rings []mpltypes.IKeyring
	for _, key := range keys {
		input := mpltypes.CreateAwsKmsKeyringInput{KmsClient: kms.NewFromConfig(settings), KmsKeyId: key}
		ring, err := providers.CreateAwsKmsKeyring(context.Background(), input)
		check(err)
		rings = append(rings, ring)
	}
	input := mpltypes.CreateMultiKeyringInput{Generator: rings[0], ChildKeyrings: rings[1:]}
	ring, err := providers.CreateMultiKeyring(context.Background(), input)
	check(err)
	return ring
}

func client(policy mpltypes.ESDKCommitmentPolicy) *esdk.Client {
	made, err := esdk.NewClient(esdktypes.AwsEncryptionSdkConfig{CommitmentPolicy: &policy})
	check(err)
	return made
}

func name(id mpltypes.ESDKAlgorithmSuiteId) string {
	for name, suite := range suites {
		if suite == id {
			return name
		}
	}
	return string(id)
}

func read(path string) []byte {
	all, err := os.ReadFile(path)
	check(err)
	return all
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

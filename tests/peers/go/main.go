// Uses a key-broker as a workload in Go would: a connection with no options but "no TLS", and the stubs of the .proto file.
//
//	client unix:<path> FACTS.json
//
// The same cases as ../python/client.py, which says what FACTS.json holds. Prints one JSON object a case.
package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"log"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/runtime/protoimpl"

	pb "peers/keybrokerv1"
)

const absent = "00000000-0000-4000-8000-000000000000"

var encryptionContext = map[string]string{"tenant": "acme"}

type facts struct {
	DisabledKey string `json:"disabled_key"`
	SlowAction  string `json:"slow_action"`
	File        string `json:"file"`
}

func main() {
	target, factsFile := os.Args[1], os.Args[2]
	var known facts
	check(json.Unmarshal(read(factsFile), &known))
	if known.File == "" {
		known.File = factsFile
	}
	plain := read(known.File)
	connection, err := grpc.Dial(target, grpc.WithInsecure())
	check(err)
	defer connection.Close()
	broker := pb.NewKeyBrokerClient(connection)

	health := grpc_health_v1.NewHealthClient(connection)
	for _, service := range []string{"", "keybroker.v1.KeyBroker"} {
		answer, err := health.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: service})
		check(err)
		say("health", line{"code": "OK", "status": answer.Status.String()})
	}

	blob, nonce, sealed := seal(broker, plain)
	request := &pb.DecryptRequest{CiphertextBlob: blob, EncryptionContext: encryptionContext}
	decrypted := decrypt("decrypt", broker, request)
	opened, err := gcm(decrypted.Plaintext).Open(nil, nonce, sealed, nil)
	check(err)
	say("file", line{"same": bytes.Equal(opened, plain), "bytes": len(plain)})

	refused(broker, known, blob)
	for i := 0; i < 200; i++ {
		generate("sequential", broker, draw("alias/dev"))
	}
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			decrypt("concurrent", broker, request)
		}()
	}
	all.Wait()
}

// seal encrypts under a new data key, which is gone when it returns.
func seal(broker pb.KeyBrokerClient, plain []byte) (blob, nonce, sealed []byte) {
	answer := generate("generate", broker, draw("alias/dev"))
	nonce = make([]byte, 12)
	_, err := rand.Read(nonce)
	check(err)
	return answer.CiphertextBlob, nonce, gcm(answer.Plaintext).Seal(nil, nonce, plain, nil)
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	check(err)
	aead, err := cipher.NewGCM(block)
	check(err)
	return aead
}

func refused(broker pb.KeyBrokerClient, known facts, blob []byte) {
	flipped := append([]byte(nil), blob...)
	flipped[len(flipped)-1] ^= 1
	other := map[string]string{"tenant": "other"}
	decrypt("wrong_context", broker, &pb.DecryptRequest{CiphertextBlob: blob, EncryptionContext: other})
	decrypt("flipped_bit", broker, &pb.DecryptRequest{CiphertextBlob: flipped, EncryptionContext: encryptionContext})
	generate("unknown_key", broker, draw(absent))
	if known.DisabledKey != "" {
		generate("disabled_key", broker, draw(known.DisabledKey))
	}
	decrypt("oversized", broker, &pb.DecryptRequest{CiphertextBlob: make([]byte, 524_288)})
	generate("no_length", broker, &pb.GenerateDataKeyRequest{KeyId: "alias/dev"})
	if known.SlowAction == "GenerateRandom" {
		soon, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		call("deadline", func(options ...grpc.CallOption) error {
			_, err := broker.GenerateRandom(soon, &pb.GenerateRandomRequest{NumberOfBytes: 32}, options...)
			return err
		})
	}
}

func draw(keyID string) *pb.GenerateDataKeyRequest {
	return &pb.GenerateDataKeyRequest{
		KeyId:             keyID,
		Length:            &pb.GenerateDataKeyRequest_KeySpec{KeySpec: pb.KeySpec_KEY_SPEC_AES_256},
		EncryptionContext: encryptionContext,
	}
}

func generate(name string, broker pb.KeyBrokerClient, request *pb.GenerateDataKeyRequest) (answer *pb.GenerateDataKeyResponse) {
	call(name, func(options ...grpc.CallOption) (err error) {
		answer, err = broker.GenerateDataKey(context.Background(), request, options...)
		return err
	})
	return answer
}

func decrypt(name string, broker pb.KeyBrokerClient, request *pb.DecryptRequest) (answer *pb.DecryptResponse) {
	call(name, func(options ...grpc.CallOption) (err error) {
		answer, err = broker.Decrypt(context.Background(), request, options...)
		return err
	})
	return answer
}

// call makes one call and prints its line.
func call(name string, method func(...grpc.CallOption) error) {
	var header, trailer metadata.MD
	err := method(grpc.Header(&header), grpc.Trailer(&trailer))
	all := metadata.Join(header, trailer)
	what := line{
		"code":         screaming(status.Code(err)),
		"requestId":    first(all, "x-request-id"),
		"kmsRequestId": first(all, "x-amzn-requestid"),
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			what["reason"], what["domain"], what["metadata"] = info.Reason, info.Domain, info.Metadata
		}
	}
	say(name, what)
}

func first(all metadata.MD, name string) interface{} {
	if values := all.Get(name); len(values) > 0 {
		return values[0]
	}
	return nil
}

// screaming gives a code the name that other languages print: InvalidArgument is INVALID_ARGUMENT.
func screaming(code codes.Code) string {
	var name strings.Builder
	previous := 'A'
	for _, letter := range code.String() {
		if unicode.IsUpper(letter) && unicode.IsLower(previous) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(letter))
		previous = letter
	}
	return name.String()
}

// current encodes messages by the protobuf runtime that the stubs are generated for. Debian compiles grpc-go 1.33 with an
// older one, which knows nothing of their oneofs. What grpc-go sends around the messages stays its own.
type current struct{}

func (current) Name() string { return "proto" }

func (current) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(protoimpl.X.ProtoMessageV2Of(message))
}

func (current) Unmarshal(encoded []byte, message interface{}) error {
	return proto.Unmarshal(encoded, protoimpl.X.ProtoMessageV2Of(message))
}

func init() {
	encoding.RegisterCodec(current{})
}

type line map[string]interface{}

var stdout sync.Mutex

func say(name string, what line) {
	what["case"] = name
	stdout.Lock()
	defer stdout.Unlock()
	check(json.NewEncoder(os.Stdout).Encode(what))
}

func read(file string) []byte {
	contents, err := os.ReadFile(file)
	check(err)
	return contents
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

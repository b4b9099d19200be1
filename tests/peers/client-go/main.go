// As tests/peers/client-python/load.py: eight calls in flight until standard input is closed.
//
//	load package|bare
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	keybroker "github.com/key-broker/key-broker/client/go"
	"github.com/key-broker/key-broker/client/go/keybrokerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const key = "alias/dev"

var acme = map[string]string{"tenant": "acme"}

func main() {
	call := map[string]func() func() error{"package": pkg, "bare": bare}[os.Args[1]]()
	var seen struct {
		Calls   int     `json:"calls"`
		Failed  int     `json:"failed"`
		First   *string `json:"first"`
		Slowest int64   `json:"slowest"`
	}
	var ended atomic.Bool
	var lock sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for !ended.Load() {
				begun := time.Now()
				err := call()
				lock.Lock()
				seen.Calls++
				seen.Slowest = max(seen.Slowest, time.Since(begun).Milliseconds())
				if err != nil {
					seen.Failed++
					if text := err.Error(); seen.First == nil {
						seen.First = &text
					}
				}
				lock.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	ended.Store(true)
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(seen)
}

func pkg() func() error {
	broker, err := keybroker.Connect()
	if err != nil {
		panic(err)
	}
	return func() error {
		_, err := broker.Encrypt(context.Background(), []byte("hello"), key, acme)
		return err
	}
}

func bare() func() error {
	connection, err := grpc.NewClient(os.Getenv("KEY_BROKER_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	broker := keybrokerpb.NewKeyBrokerClient(connection)
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		request := &keybrokerpb.EncryptMessageRequest{KeyId: key, EncryptionContext: acme, Plaintext: []byte("hello")}
		_, err := broker.EncryptMessage(ctx, request)
		return err
	}
}

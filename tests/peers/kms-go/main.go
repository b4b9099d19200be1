// GenerateDataKey of the AWS SDK for Go, for the peers bench; what it is told and prints is as in benches/peers/load.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

func main() {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		fail(err)
	}
	client := kms.NewFromConfig(settings)
	key := os.Getenv("KMS_KEY")
	call := func() error {
		_, err := client.GenerateDataKey(context.Background(), &kms.GenerateDataKeyInput{
			KeyId:             &key,
			KeySpec:           types.DataKeySpecAes256,
			EncryptionContext: map[string]string{"tenant": "acme", "purpose": "orders"},
		})
		return err
	}
	fmt.Printf("Go %s, aws-sdk-go-v2/service/kms %s\n", runtime.Version()[2:], version())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var inFlight, milliseconds int
		if _, err := fmt.Sscan(lines.Text(), &inFlight, &milliseconds); err != nil {
			fail(err)
		}
		json.NewEncoder(os.Stdout).Encode(run(call, inFlight, time.Duration(milliseconds)*time.Millisecond))
	}
}

type sample struct {
	Seconds float64 `json:"seconds"`
	Micros  []int64 `json:"micros"`
}

func run(call func() error, inFlight int, length time.Duration) sample {
	began := time.Now()
	end := began.Add(length)
	times := make([][]int64, inFlight)
	var all sync.WaitGroup
	for worker := range inFlight {
		all.Go(func() {
			for start := time.Now(); start.Before(end); {
				if err := call(); err != nil {
					fail(err)
				}
				ended := time.Now()
				times[worker] = append(times[worker], ended.Sub(start).Microseconds())
				start = ended
			}
		})
	}
	all.Wait()
	seen := sample{Seconds: time.Since(began).Seconds()}
	for _, some := range times {
		seen.Micros = append(seen.Micros, some...)
	}
	return seen
}

func version() string {
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, module := range built.Deps {
			if module.Path == "github.com/aws/aws-sdk-go-v2/service/kms" {
				return module.Version
			}
		}
	}
	return "of unknown version"
}

// A call that fails ends the measurement.
func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

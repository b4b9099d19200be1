package keybroker

import (
	"crypto/tls"
	"testing"
)

// Proves: an address is where key material goes, so only those of this machine are taken without TLS.
func TestAddressesOfThisMachine(t *testing.T) {
	for address, expected := range map[string]string{
		"unix:///run/b.sock": "unix:/run/b.sock",
		"unix:/run/b.sock":   "unix:/run/b.sock",
		"unix:b.sock":        "unix:b.sock",
		"127.0.0.1:7890":     "dns:///127.0.0.1:7890",
		"127.9.9.9:7890":     "dns:///127.9.9.9:7890",
		"[::1]:7890":         "dns:///[::1]:7890",
		"localhost:7890":     "dns:///localhost:7890",
	} {
		if got, err := target(address, false); err != nil || got != expected {
			t.Errorf("%s: %s %v", address, got, err)
		}
	}
}

func TestOthersAreRefused(t *testing.T) {
	for _, address := range []string{
		"10.0.0.1:7890", "broker.internal:7890", "[::]:7890", "0.0.0.0:7890", "localhost.example.org:7890", "127.0.0.1", ":7890", "unix:",
		"unix://b.sock", "unix:@abstract", "unix:\x00abstract", "unix-abstract:name", "dns:127.0.0.1", "vsock:2:7890",
		"http://127.0.0.1:7890", "127.0.0.1:http",
	} {
		if client, err := Connect(WithAddress(address)); err == nil {
			t.Errorf("%q: %s", address, client.target)
		}
	}
}

func TestTLSGoesAnywhereButToASocket(t *testing.T) {
	if _, err := Connect(WithAddress("broker.internal:7890"), WithTLS(&tls.Config{MinVersion: tls.VersionTLS13})); err != nil {
		t.Error(err)
	}
	if _, err := Connect(WithAddress("unix:/run/b.sock"), WithTLS(&tls.Config{MinVersion: tls.VersionTLS13})); err == nil {
		t.Error("a socket with TLS")
	}
}

func TestTheEnvironmentSaysWhereThenTheDefault(t *testing.T) {
	t.Setenv(addressVariable, "unix:/tmp/mine.sock")
	if got, _ := target("", false); got != "unix:/tmp/mine.sock" {
		t.Error(got)
	}
	t.Setenv(addressVariable, "")
	if got, _ := target("", false); got != "unix:/run/key-broker/broker.sock" {
		t.Error(got)
	}
}

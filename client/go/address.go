package keybroker

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// DefaultAddress is where a broker listens unless it is configured otherwise.
const DefaultAddress = "unix:///run/key-broker/broker.sock"

// addressVariable is the environment variable that says where the broker is.
const addressVariable = "KEY_BROKER_ADDRESS"

// target is the address as gRPC takes it, or an error for one that key material must not go to.
func target(address string, hasTLS bool) (string, error) {
	if address == "" {
		address = os.Getenv(addressVariable)
	}
	if address == "" {
		address = DefaultAddress
	}
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		return unixTarget(address, path, hasTLS)
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || strings.ContainsAny(host, "/%") {
		return "", fmt.Errorf("keybroker: %q is not a broker's address: write unix:PATH, or HOST:PORT", address)
	}
	if !hasTLS && !isLoopback(host) {
		return "", fmt.Errorf("keybroker: %q is not an address of this machine: plaintext never leaves it: write 127.0.0.1:PORT, or connect with TLS", address)
	}
	return "dns:///" + address, nil
}

func unixTarget(address, path string, hasTLS bool) (string, error) {
	if rest, hasAuthority := strings.CutPrefix(path, "//"); hasAuthority {
		path = rest
		if !strings.HasPrefix(path, "/") {
			return "", fmt.Errorf("keybroker: %q has no absolute path: write unix:///PATH, or unix:PATH", address)
		}
	}
	if path == "" || strings.HasPrefix(path, "@") || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("keybroker: %q has no path of a socket: write unix:PATH", address)
	}
	if hasTLS {
		return "", fmt.Errorf("keybroker: a unix socket takes no TLS: the kernel says who is at its other end")
	}
	return "unix:" + path, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

package io.keybroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Proves: an address is where key material goes, so only those of this machine are taken without TLS. */
class AddressTest {
  @ParameterizedTest
  @CsvSource({
    "unix:///run/b.sock, unix:/run/b.sock", "unix:/run/b.sock, unix:/run/b.sock", "unix:b.sock, unix:b.sock", "127.0.0.1:7890, 127.0.0.1:7890",
    "127.9.9.9:7890, 127.9.9.9:7890", "[::1]:7890, [::1]:7890", "[0:0:0:0:0:0:0:1]:7890, [0:0:0:0:0:0:0:1]:7890", "localhost:7890, localhost:7890",
  })
  void addressesOfThisMachine(String address, String expected) {
    assertEquals(expected, Address.of(address, false).toString());
  }

  @ParameterizedTest
  @ValueSource(strings = {
    "10.0.0.1:7890", "broker.internal:7890", "[::]:7890", "0.0.0.0:7890", "localhost.example.org:7890", "127.0.0.1", ":7890", "unix:",
    "unix://b.sock", "unix:@abstract", "unix:\0abstract", "unix-abstract:name", "dns:127.0.0.1", "vsock:2:7890", "http://127.0.0.1:7890",
    "127.0.0.1:http", "127.0.0.1:99999", "127.0.0.256:7890", "[::2]:7890",
  })
  void othersAreRefused(String address) {
    assertThrows(IllegalArgumentException.class, () -> KeyBroker.connect(address));
  }

  @Test
  void tlsGoesAnywhereButToASocket() {
    assertEquals("broker.internal:7890", Address.of("broker.internal:7890", true).toString());
    assertThrows(IllegalArgumentException.class, () -> Address.of("unix:/run/b.sock", true));
  }

  @Test
  void aPrivateKeyIsNotPrinted() {
    var tls = new Tls(new byte[0], new byte[0], new byte[0], "broker.internal");
    assertFalse(tls.toString().contains("key"));
  }
}

package io.keybroker;

import java.util.Objects;

/**
 * What mutual TLS takes, all in PEM.
 *
 * @param certificate the client's certificate, then those that it chains through
 * @param key its private key
 * @param trustBundle the authorities whose certificate the broker may show
 * @param serverName the DNS name in the broker's certificate; null where it is the host of the address
 */
public record Tls(byte[] certificate, byte[] key, byte[] trustBundle, String serverName) {
  /** All but the name of the server have to be there. */
  public Tls {
    Objects.requireNonNull(certificate, "certificate");
    Objects.requireNonNull(key, "key");
    Objects.requireNonNull(trustBundle, "trustBundle");
  }

  @Override
  public String toString() {
    return "Tls[serverName=" + serverName + "]";
  }
}

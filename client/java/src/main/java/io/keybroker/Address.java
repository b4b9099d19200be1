package io.keybroker;

import java.util.regex.Pattern;

/** Where the broker is: a socket's path, or a host and a port. */
record Address(String path, String host, int port) {
  private static final String DEFAULT = "unix:///run/key-broker/broker.sock";
  private static final String VARIABLE = "KEY_BROKER_ADDRESS";
  private static final Pattern TCP = Pattern.compile("(\\[[0-9a-fA-F:.]+]|[^:\\[\\]/%]+):(\\d{1,5})");
  private static final Pattern LOOPBACK = Pattern.compile("127(\\.(25[0-5]|2[0-4]\\d|1\\d\\d|\\d\\d?)){3}|\\[(0{0,4}:){1,7}0{0,3}1]|localhost");

  /** Reads an address. Those that key material must not go to are an {@link IllegalArgumentException}. */
  static Address of(String given, boolean hasTls) {
    String address = given != null ? given : System.getenv(VARIABLE);
    if (address == null || address.isEmpty()) {
      address = DEFAULT;
    }
    if (address.startsWith("unix:")) {
      return unix(address, hasTls);
    }
    var parts = TCP.matcher(address);
    int port = parts.matches() ? Integer.parseInt(parts.group(2)) : -1;
    if (port < 0 || port > 65_535) {
      throw refused(address, "is not a broker's address: write unix:PATH, or HOST:PORT");
    }
    if (!hasTls && !LOOPBACK.matcher(parts.group(1)).matches()) {
      throw refused(address, "is not an address of this machine: plaintext never leaves it: write 127.0.0.1:PORT, or connect with TLS");
    }
    return new Address(null, parts.group(1), port);
  }

  private static Address unix(String address, boolean hasTls) {
    String path = address.substring("unix:".length());
    if (path.startsWith("//")) {
      path = path.substring(2);
      if (!path.startsWith("/")) {
        throw refused(address, "has no absolute path: write unix:///PATH, or unix:PATH");
      }
    }
    if (path.isEmpty() || path.startsWith("@") || path.indexOf('\0') >= 0) {
      throw refused(address, "has no path of a socket: write unix:PATH");
    }
    if (hasTls) {
      throw refused(address, "takes no TLS: the kernel says who is at the other end of a unix socket");
    }
    return new Address(path, null, 0);
  }

  private static IllegalArgumentException refused(String address, String why) {
    return new IllegalArgumentException("\"" + address + "\" " + why);
  }

  @Override
  public String toString() {
    return path != null ? "unix:" + path : host + ":" + port;
  }
}

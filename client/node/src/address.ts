import { BlockList, isIP } from "node:net";

/** Where a broker listens unless it is configured otherwise. */
export const DEFAULT_ADDRESS = "unix:///run/key-broker/broker.sock";

/** What mutual TLS takes, all in PEM. */
export interface Tls {
  /** The client's certificate, then those that it chains through. */
  certificate: Buffer;
  /** Its private key. */
  key: Buffer;
  /** The authorities whose certificate the broker may show. */
  trustBundle: Buffer;
  /** The DNS name in the broker's certificate, where it is not the host of the address. */
  serverName?: string;
}

/** The address as gRPC takes it. Throws a TypeError for one that key material must not go to. */
export function target(given: string | undefined, tls: Tls | undefined): string {
  const address = given || process.env["KEY_BROKER_ADDRESS"] || DEFAULT_ADDRESS;
  if (address.startsWith("unix:")) return unix(address, tls);
  const [, host, port] = /^(\[[0-9a-fA-F:.]+\]|[^:[\]/%]+):(\d+)$/.exec(address) ?? [];
  if (host === undefined || Number(port) > 65_535) {
    throw new TypeError(`${JSON.stringify(address)} is not a broker's address: write unix:PATH, or HOST:PORT`);
  }
  if (tls === undefined && !isLoopback(host)) {
    throw new TypeError(
      `${JSON.stringify(address)} is not an address of this machine: plaintext never leaves it: write 127.0.0.1:PORT, or connect with tls`,
    );
  }
  return `dns:${address}`;
}

function unix(address: string, tls: Tls | undefined): string {
  let path = address.slice("unix:".length);
  if (path.startsWith("//")) {
    path = path.slice(2);
    if (!path.startsWith("/")) {
      throw new TypeError(`${JSON.stringify(address)} has no absolute path: write unix:///PATH, or unix:PATH`);
    }
  }
  if (path === "" || path.startsWith("@") || path.includes("\0")) {
    throw new TypeError(`${JSON.stringify(address)} has no path of a socket: write unix:PATH`);
  }
  if (tls !== undefined) {
    throw new TypeError("a unix socket takes no tls: the kernel says who is at its other end");
  }
  return `unix:${path}`;
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "");
  const family = isIP(bare);
  return bare === "localhost" || (family !== 0 && loopback.check(bare, family === 4 ? "ipv4" : "ipv6"));
}

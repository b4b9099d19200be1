package io.keybroker;

/**
 * Tightens the broker's bounds of reuse for one call; never widens them. 0 means as configured.
 *
 * @param maxAgeSeconds how old the data key may be
 * @param maxMessages how many messages it may serve in all
 * @param maxBytes how many bytes it may serve in all
 * @param fresh whether nobody else may have had it, or will get it: one call to KMS
 */
public record Reuse(int maxAgeSeconds, long maxMessages, long maxBytes, boolean fresh) {
  /** A data key that nobody else has had or will get. */
  public static final Reuse FRESH = new Reuse(0, 0, 0, true);
}

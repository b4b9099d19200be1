/**
 * Encrypts and decrypts with AWS KMS through the key-broker beside this process, which needs no AWS credentials.
 *
 * <pre>{@code
 * try (var broker = KeyBroker.connect()) {
 *   byte[] message = broker.encrypt("hello".getBytes(UTF_8), "alias/dev", Map.of("tenant", "acme"));
 *   byte[] plaintext = broker.decrypt(message, Map.of("tenant", "acme"));
 * }
 * }</pre>
 */
package io.keybroker;

package io.keybroker;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.SequenceInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/**
 * Proves what the client promises, against a broker: `key-broker dev`, or any whose KEY_BROKER_ADDRESS is set. See tests/client_packages.rs.
 */
class KeyBrokerTest {
  private static final String KEY = "alias/dev";
  private static final Map<String, String> ACME = Map.of("tenant", "acme");
  private static final SpanContext CALLER =
      SpanContext.create("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", TraceFlags.getSampled(), TraceState.getDefault());
  private static KeyBroker broker;

  @BeforeAll
  static void connect() {
    assertNotNull(System.getenv("KEY_BROKER_ADDRESS"), "start `cargo dev`, and set KEY_BROKER_ADDRESS=unix:.key-broker-dev/broker.sock");
    broker = KeyBroker.connect();
  }

  @AfterAll
  static void close() {
    broker.close();
  }

  @Test
  void aMessageComesBack() {
    byte[] message = broker.encrypt("hello".getBytes(UTF_8), KEY, ACME);
    assertEquals("hello", new String(broker.decrypt(message, ACME), UTF_8));
    var opened = broker.decryptMessage(message, Map.of(), Options.DEFAULT.withKeyId(KEY));
    assertEquals("acme", opened.encryptionContext().get("tenant"));
    assertTrue(opened.keyId().startsWith("arn:aws:kms:"));
    assertFalse(opened.provenance().kmsRequestId().isEmpty());
    for (int size : new int[] {0, 1, 3 << 20}) {
      assertEquals(size, broker.decrypt(broker.encrypt(new byte[size], KEY, Map.of()), Map.of()).length);
    }
  }

  @Test
  void anAlteredMessageAndAnotherContextAreRefused() {
    byte[] message = broker.encrypt("hello".getBytes(UTF_8), KEY, ACME);
    var other = assertThrows(KeyBrokerException.class, () -> broker.decrypt(message, Map.of("tenant", "other")));
    assertEquals(Optional.of("ENCRYPTION_CONTEXT_MISMATCH"), other.reason());
    message[message.length - 1] ^= 1;
    var altered = assertThrows(KeyBrokerException.class, () -> broker.decrypt(message, Map.of()));
    assertEquals(Optional.of("INVALID_MESSAGE"), altered.reason());
  }

  @Test
  void aStreamComesBack() throws IOException {
    var plaintext = new byte[5_000_000];
    new java.util.Random(1).nextBytes(plaintext);
    var message = new ByteArrayOutputStream();
    broker.encryptStream(new ByteArrayInputStream(plaintext), message, KEY, ACME, Options.DEFAULT.withPlaintextLength(plaintext.length));
    var opened = new ByteArrayOutputStream();
    var facts = broker.decryptStream(new ByteArrayInputStream(message.toByteArray()), opened, ACME, Options.DEFAULT);
    assertArrayEquals(plaintext, opened.toByteArray());
    assertEquals("acme", facts.encryptionContext().get("tenant"));
  }

  @Test
  void aStreamWhoseSourceOrSinkFailsHasNoEnd() {
    var gone = new InputStream() {
      @Override
      public int read() throws IOException {
        throw new IOException("the disk is gone");
      }
    };
    var source = new SequenceInputStream(new ByteArrayInputStream("first".getBytes(UTF_8)), gone);
    var failed = assertThrows(IOException.class, () -> broker.encryptStream(source, OutputStream.nullOutputStream(), KEY, ACME, Options.DEFAULT));
    assertEquals("the disk is gone", failed.getMessage());
    var full = new OutputStream() {
      @Override
      public void write(int b) throws IOException {
        throw new IOException("the disk is full");
      }
    };
    var first = new ByteArrayInputStream("first".getBytes(UTF_8));
    failed = assertThrows(IOException.class, () -> broker.encryptStream(first, full, KEY, ACME, Options.DEFAULT));
    assertEquals("the disk is full", failed.getMessage());
  }

  @Test
  void aDataKeyIsErasedWhenItIsClosed() {
    byte[] plaintext;
    byte[] blob;
    String keyId;
    DataKey closed;
    try (var key = broker.dataKey(KEY, ACME)) {
      closed = key;
      plaintext = key.plaintext();
      blob = key.ciphertextBlob();
      keyId = key.keyId();
      assertEquals(32, plaintext.length);
      try (var again = broker.decryptDataKey(blob, keyId, ACME)) {
        assertArrayEquals(plaintext, again.plaintext());
      }
    }
    assertArrayEquals(new byte[32], plaintext);
    assertThrows(IllegalStateException.class, closed::plaintext);
  }

  @Test
  void valuesAreEncryptedUnderTheKeyItself() {
    var sealed = broker.encryptValue("password".getBytes(UTF_8), KEY, ACME);
    assertEquals("password", new String(broker.decryptValue(sealed.ciphertextBlob(), sealed.keyId(), ACME), UTF_8));
    var other = Map.of("tenant", "other");
    var moved = broker.reEncrypt(sealed.ciphertextBlob(), new KeyBroker.Bound(sealed.keyId(), ACME), new KeyBroker.Bound(KEY, other));
    assertEquals("password", new String(broker.decryptValue(moved.ciphertextBlob(), moved.keyId(), other), UTF_8));
    var refused = assertThrows(KeyBrokerException.class, () -> broker.decryptValue(moved.ciphertextBlob(), moved.keyId(), ACME));
    assertEquals(Optional.of("INVALID_CIPHERTEXT"), refused.reason());
    var only = broker.dataKeyWithoutPlaintext(KEY, ACME, Options.DEFAULT.withLength(16));
    assertEquals(16, broker.decryptDataKey(only.ciphertextBlob(), only.keyId(), ACME).plaintext().length);
  }

  @Test
  void aPrivateKeyIsErasedWhenItsPairIsClosed() throws GeneralSecurityException {
    for (var spec : Map.of(KeyPairSpec.ECC_NIST_P256, "EC", KeyPairSpec.RSA_2048, "RSA").entrySet()) {
      byte[] privateKey;
      DataKeyPair closed;
      try (var pair = broker.dataKeyPair(KEY, ACME, spec.getKey())) {
        closed = pair;
        privateKey = pair.privateKey();
        var factory = KeyFactory.getInstance(spec.getValue());
        factory.generatePrivate(new PKCS8EncodedKeySpec(privateKey));
        factory.generatePublic(new X509EncodedKeySpec(pair.publicKey()));
        try (var again = broker.decryptDataKey(pair.sealed().privateKeyCiphertextBlob(), pair.sealed().keyId(), ACME)) {
          assertArrayEquals(privateKey, again.plaintext());
        }
      }
      assertArrayEquals(new byte[privateKey.length], privateKey);
      assertThrows(IllegalStateException.class, closed::privateKey);
    }
    var sealed = broker.dataKeyPairWithoutPlaintext(KEY, ACME, KeyPairSpec.ECC_NIST_P384, Options.DEFAULT);
    assertTrue(broker.decryptDataKey(sealed.privateKeyCiphertextBlob(), sealed.keyId(), ACME).plaintext().length > 100);
  }

  @Test
  void lengthsAndReuseOfDataKeys() {
    for (int length : new int[] {16, 32, 100}) {
      assertEquals(length, broker.dataKey(KEY, Map.of(), Options.DEFAULT.withLength(length)).plaintext().length);
    }
    var fresh = Options.DEFAULT.withReuse(Reuse.FRESH);
    assertFalse(Arrays.equals(broker.dataKey(KEY, ACME, fresh).plaintext(), broker.dataKey(KEY, ACME, fresh).plaintext()));
    broker.dataKey(KEY, ACME).close();
    assertTrue(broker.dataKey(KEY, ACME, Options.DEFAULT.withUse(2, 100)).provenance().isCached());
    assertEquals("Enabled", broker.describeKey(KEY).keyState());
  }

  @Test
  void errorsSayWhatAProgramNeeds() {
    var altered = assertThrows(KeyBrokerException.class, () -> broker.decryptDataKey("no ciphertext of KMS".getBytes(UTF_8), KEY, Map.of()));
    assertEquals(Status.Code.INVALID_ARGUMENT, altered.code());
    assertEquals(Optional.of("INVALID_CIPHERTEXT"), altered.reason());
    assertEquals(Optional.of("kms.amazonaws.com"), altered.domain());
    assertTrue(altered.kmsRequestId().isPresent() && altered.getMessage().contains(altered.requestId().orElseThrow()));
    assertTrue(!altered.isDenied() && !altered.isRetryable() && altered.retryDelay().isEmpty());

    var denied = assertThrows(KeyBrokerException.class, () -> broker.dataKey("alias/forbidden", Map.of()));
    assertEquals(Optional.of("DENIED_BY_POLICY"), denied.reason());
    assertEquals(Optional.of("keybroker"), denied.domain());
    assertTrue(denied.isDenied() && !denied.isRetryable());

    // The broker's KMS has to throttle GenerateRandom.
    var throttled = assertThrows(KeyBrokerException.class, () -> broker.random(16));
    assertEquals(Optional.of("KMS_THROTTLED"), throttled.reason());
    assertTrue(throttled.isRetryable() && !throttled.isDenied());
    assertTrue(throttled.retryDelay().orElseThrow().toMillis() > 0);
  }

  @Test
  void aBrokerThatIsNotThereIsWaitedForUntilTheDeadline(@TempDir Path dir) {
    try (var nobody = KeyBroker.builder().address("unix:" + dir.resolve("none.sock")).deadline(Duration.ofMillis(500)).connect()) {
      long begun = System.nanoTime();
      var late = assertThrows(KeyBrokerException.class, () -> nobody.dataKey(KEY, ACME));
      long took = (System.nanoTime() - begun) / 1_000_000;
      assertTrue(took > 400 && took < 5_000, () -> took + " ms");
      assertEquals(Status.Code.DEADLINE_EXCEEDED, late.code());
      assertTrue(late.getMessage().contains("none.sock"), late.getMessage());
    }
  }

  @Test
  void theCurrentSpanIsNamed() {
    assertEquals(Map.of(), Tracing.current());
    try (var scope = Span.wrap(CALLER).makeCurrent()) {
      assertEquals(Map.of("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Tracing.current());
    }
  }

  @Test
  @EnabledIfEnvironmentVariable(named = "KEY_BROKER_TEST_TLS", matches = ".+", disabledReason = "no second broker, with TLS, is told of")
  void twoBrokersAndTwoLanguagesExchangeMessages() throws IOException {
    var folder = Path.of(System.getenv("KEY_BROKER_TEST_TLS"));
    var tls = new Tls(
        Files.readAllBytes(folder.resolve("tls.crt")), Files.readAllBytes(folder.resolve("tls.key")), Files.readAllBytes(folder.resolve("ca.crt")),
        "broker.test");
    try (var other = KeyBroker.builder().address(System.getenv("KEY_BROKER_TEST_TLS_ADDRESS")).tls(tls).connect()) {
      // In a trace, which the broker has to find.
      try (var scope = Span.wrap(CALLER).makeCurrent()) {
        assertEquals("Enabled", other.describeKey(KEY).keyState());
      }
      assertEquals("over", new String(other.decrypt(broker.encrypt("over".getBytes(UTF_8), KEY, ACME), ACME), UTF_8));
      assertEquals("and back", new String(broker.decrypt(other.encrypt("and back".getBytes(UTF_8), KEY, ACME), ACME), UTF_8));
    }
    var exchange = Path.of(System.getenv("KEY_BROKER_TEST_EXCHANGE"));
    assertEquals("from Rust", new String(broker.decrypt(Files.readAllBytes(exchange.resolve("from-rust")), ACME), UTF_8));
    Files.write(exchange.resolve("to-rust"), broker.encrypt("to Rust".getBytes(UTF_8), KEY, ACME));
  }
}

package io.keybroker.adapters;

import com.google.crypto.tink.Aead;
import com.google.crypto.tink.KmsClient;
import io.keybroker.KeyBroker;
import io.keybroker.KeyBrokerException;
import io.keybroker.Options;
import java.security.GeneralSecurityException;
import java.util.Base64;
import java.util.Map;
import java.util.Objects;

/**
 * For Tink: a KmsClient whose remote AEAD is the broker, for keys {@code key-broker://KEY}, where KEY is a key ARN or {@code alias/NAME}.
 *
 * <p>It takes the package {@code com.google.crypto.tink:tink}, which is an optional dependency.
 */
public final class TinkKms implements KmsClient {
  private static final String SCHEME = "key-broker://";
  // Bound to the message, and stands in the audit trail: base64, since an encryption context is text.
  private static final String ASSOCIATED_DATA = "tink-associated-data";

  private final KeyBroker broker;

  private TinkKms(KeyBroker broker) {
    this.broker = broker;
  }

  /** A KmsClient for all keys of one broker. */
  public static KmsClient of(KeyBroker broker) {
    return new TinkKms(broker);
  }

  @Override
  public boolean doesSupport(String keyUri) {
    return keyUri.startsWith(SCHEME);
  }

  /** A broker takes no credentials. */
  @Override
  public KmsClient withCredentials(String credentialPath) {
    return this;
  }

  @Override
  public KmsClient withDefaultCredentials() {
    return this;
  }

  @Override
  public Aead getAead(String keyUri) throws GeneralSecurityException {
    if (!doesSupport(keyUri)) {
      throw new GeneralSecurityException("\"" + keyUri + "\" is no key of a broker: write " + SCHEME + "KEY");
    }
    return new BrokerAead(broker, keyUri.substring(SCHEME.length()));
  }

  private record BrokerAead(KeyBroker broker, String keyId) implements Aead {
    @Override
    public byte[] encrypt(byte[] plaintext, byte[] associatedData) throws GeneralSecurityException {
      try {
        return broker.encrypt(plaintext, keyId, context(associatedData));
      } catch (KeyBrokerException error) {
        throw new GeneralSecurityException(error);
      }
    }

    @Override
    public byte[] decrypt(byte[] ciphertext, byte[] associatedData) throws GeneralSecurityException {
      var context = context(associatedData);
      try {
        var opened = broker.decryptMessage(ciphertext, context, Options.DEFAULT.withKeyId(keyId));
        // A message with associated data is not one without.
        if (!Objects.equals(opened.encryptionContext().get(ASSOCIATED_DATA), context.get(ASSOCIATED_DATA))) {
          throw new GeneralSecurityException("the message has other associated data");
        }
        return opened.plaintext();
      } catch (KeyBrokerException error) {
        throw new GeneralSecurityException(error);
      }
    }

    private static Map<String, String> context(byte[] associatedData) {
      if (associatedData == null || associatedData.length == 0) {
        return Map.of();
      }
      return Map.of(ASSOCIATED_DATA, Base64.getEncoder().encodeToString(associatedData));
    }
  }
}

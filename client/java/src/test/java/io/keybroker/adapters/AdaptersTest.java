package io.keybroker.adapters;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.amazonaws.encryptionsdk.AwsCrypto;
import com.google.crypto.tink.Aead;
import com.google.crypto.tink.aead.AeadConfig;
import com.google.crypto.tink.aead.KmsEnvelopeAead;
import com.google.crypto.tink.aead.PredefinedAeadParameters;
import io.keybroker.KeyBroker;
import java.security.GeneralSecurityException;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kms.model.DataKeySpec;
import software.amazon.cryptography.materialproviders.MaterialProviders;
import software.amazon.cryptography.materialproviders.model.CreateAwsKmsKeyringInput;
import software.amazon.cryptography.materialproviders.model.MaterialProvidersConfig;

/** Proves: the AWS Encryption SDK and Tink encrypt through the broker, with no AWS credentials in this process. */
class AdaptersTest {
  private static final String KEY = "alias/dev";
  private static final Map<String, String> ACME = Map.of("tenant", "acme");
  private static KeyBroker broker;

  @BeforeAll
  static void connect() {
    broker = KeyBroker.connect();
  }

  @AfterAll
  static void close() {
    broker.close();
  }

  @Test
  void theEncryptionSdkAndTheBrokerReadOneAnother() {
    var providers = MaterialProviders.builder().MaterialProvidersConfig(MaterialProvidersConfig.builder().build()).build();
    var arn = broker.describeKey(KEY).arn();
    var keyring = providers.CreateAwsKmsKeyring(
        CreateAwsKmsKeyringInput.builder().kmsKeyId(arn).kmsClient(AwsKms.of(broker, Region.US_WEST_2)).build());
    var sdk = AwsCrypto.standard();
    byte[] writtenHere = sdk.encryptData(keyring, "hello".getBytes(UTF_8), ACME).getResult();
    assertEquals("hello", new String(sdk.decryptData(keyring, writtenHere).getResult(), UTF_8));
    // Its default suite, which is signed.
    assertEquals("hello", new String(broker.decrypt(writtenHere, ACME), UTF_8));
    byte[] writtenThere = broker.encrypt("and back".getBytes(UTF_8), KEY, ACME);
    assertEquals("and back", new String(sdk.decryptData(keyring, writtenThere).getResult(), UTF_8));
  }

  @Test
  void whatTheAwsSdkTakesIsTaken() {
    var kms = AwsKms.of(broker, Region.US_WEST_2);
    var key = kms.generateDataKey(request -> request.keyId(KEY).keySpec(DataKeySpec.AES_128).encryptionContext(ACME));
    assertEquals(16, key.plaintext().asByteArray().length);
    var again = kms.decrypt(request -> request.ciphertextBlob(key.ciphertextBlob()).keyId(key.keyId()).encryptionContext(ACME));
    assertEquals(key.plaintext(), again.plaintext());
  }

  @Test
  void tinkEncryptsWithTheBroker() throws GeneralSecurityException {
    AeadConfig.register();
    var tink = TinkKms.of(broker);
    var remote = tink.getAead("key-broker://" + KEY);
    for (Aead used : List.of(remote, KmsEnvelopeAead.create(PredefinedAeadParameters.AES256_GCM, remote))) {
      for (var associated : List.of("", "tenant acme")) {
        byte[] sealed = used.encrypt("hello".getBytes(UTF_8), associated.getBytes(UTF_8));
        assertEquals("hello", new String(used.decrypt(sealed, associated.getBytes(UTF_8)), UTF_8));
        assertThrows(GeneralSecurityException.class, () -> used.decrypt(sealed, "other".getBytes(UTF_8)));
      }
    }
    byte[] bound = remote.encrypt("hello".getBytes(UTF_8), "some".getBytes(UTF_8));
    assertThrows(GeneralSecurityException.class, () -> remote.decrypt(bound, new byte[0]));
    assertFalse(tink.doesSupport("aws-kms://" + KEY));
    assertThrows(GeneralSecurityException.class, () -> tink.getAead("aws-kms://" + KEY));
  }
}

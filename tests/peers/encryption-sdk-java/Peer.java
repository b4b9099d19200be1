import com.amazonaws.encryptionsdk.AwsCrypto;
import com.amazonaws.encryptionsdk.CommitmentPolicy;
import com.amazonaws.encryptionsdk.CryptoAlgorithm;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import software.amazon.awssdk.services.kms.KmsClient;
import software.amazon.cryptography.materialproviders.IKeyring;
import software.amazon.cryptography.materialproviders.MaterialProviders;
import software.amazon.cryptography.materialproviders.model.CreateAwsKmsKeyringInput;
import software.amazon.cryptography.materialproviders.model.CreateMultiKeyringInput;
import software.amazon.cryptography.materialproviders.model.MaterialProvidersConfig;

/**
 * Opens and seals files with the AWS Encryption SDK for Java, for ../../message_peers.rs: the plan, and what is printed, are those of
 * ../encryption-sdk/client.py.
 */
final class Peer {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final IKeyring keyring;

  private Peer(IKeyring keyring) {
    this.keyring = keyring;
  }

  public static void main(String[] arguments) throws IOException {
    var plan = JSON.readTree(Path.of(arguments[0]).toFile());
    var peer = new Peer(keyring(plan.get("keys")));
    for (var path : plan.get("open")) {
      peer.open(path.asText());
    }
    for (var wish : plan.get("seal")) {
      peer.seal(wish);
    }
  }

  private static IKeyring keyring(JsonNode keys) {
    var providers = MaterialProviders.builder().MaterialProvidersConfig(MaterialProvidersConfig.builder().build()).build();
    // AWS_ENDPOINT_URL_KMS says where it is.
    var kms = KmsClient.create();
    List<IKeyring> rings = new ArrayList<>();
    for (var key : keys) {
      rings.add(providers.CreateAwsKmsKeyring(CreateAwsKmsKeyringInput.builder().kmsKeyId(key.asText()).kmsClient(kms).build()));
    }
    var others = rings.subList(1, rings.size());
    return providers.CreateMultiKeyring(CreateMultiKeyringInput.builder().generator(rings.get(0)).childKeyrings(others).build());
  }

  private void open(String path) throws IOException {
    var sdk = AwsCrypto.builder().withCommitmentPolicy(CommitmentPolicy.RequireEncryptRequireDecrypt).build();
    try (var message = new FileInputStream(path);
        var opened = new FileOutputStream(path + ".opened");
        var plaintext = sdk.createUnsignedMessageDecryptingStream(keyring, message)) {
      plaintext.transferTo(opened);
      var header = plaintext.getCryptoResult();
      say(Map.of("opened", path, "suite", header.getCryptoAlgorithm().name(), "context", header.getEncryptionContext()));
    }
  }

  private void seal(JsonNode wish) throws IOException {
    boolean isCommitting = wish.get("committing").asBoolean();
    var policy = isCommitting ? CommitmentPolicy.RequireEncryptRequireDecrypt : CommitmentPolicy.ForbidEncryptAllowDecrypt;
    var sdk = AwsCrypto.builder()
        .withCommitmentPolicy(policy)
        .withEncryptionAlgorithm(CryptoAlgorithm.valueOf(wish.get("suite").asText()))
        .withEncryptionFrameSize(wish.get("frame_length").asInt())
        .build();
    Map<String, String> context = new HashMap<>();
    for (var pair : wish.get("context").properties()) {
      context.put(pair.getKey(), pair.getValue().asText());
    }
    try (var plaintext = new FileInputStream(wish.get("plaintext").asText());
        var sealed = new FileOutputStream(wish.get("to").asText());
        var message = sdk.createEncryptingStream(keyring, plaintext, context)) {
      message.transferTo(sealed);
    }
    say(Map.of("sealed", wish.get("to").asText()));
  }

  private static void say(Map<String, Object> fields) throws IOException {
    System.out.println(JSON.writeValueAsString(fields));
  }
}

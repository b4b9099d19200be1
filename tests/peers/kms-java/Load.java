import java.net.URI;
import java.util.ArrayList;
import java.util.Map;
import java.util.Scanner;
import java.util.stream.Collectors;
import software.amazon.awssdk.core.util.VersionInfo;
import software.amazon.awssdk.services.kms.KmsClient;
import software.amazon.awssdk.services.kms.model.DataKeySpec;

/** GenerateDataKey of the AWS SDK for Java, for the peers bench; what it is told and prints is as in benches/peers/load.py. */
public final class Load {
  private static final String KEY = System.getenv("KMS_KEY");
  private static final Map<String, String> CONTEXT = Map.of("tenant", "acme", "purpose", "orders");

  public static void main(String[] arguments) throws Exception {
    var client = KmsClient.builder().endpointOverride(URI.create(System.getenv("AWS_ENDPOINT_URL_KMS"))).build();
    Runnable call = () -> client.generateDataKey(
        request -> request.keyId(KEY).keySpec(DataKeySpec.AES_256).encryptionContext(CONTEXT));
    System.out.printf("Java %s, AWS SDK %s%n", System.getProperty("java.version"), VersionInfo.SDK_VERSION);
    for (var lines = new Scanner(System.in); lines.hasNextLine(); ) {
      var words = lines.nextLine().split(" ");
      System.out.println(run(call, Integer.parseInt(words[0]), Long.parseLong(words[1])));
    }
    System.exit(0);
  }

  private static String run(Runnable call, int inFlight, long milliseconds) throws InterruptedException {
    long began = System.nanoTime();
    long end = began + milliseconds * 1_000_000;
    var every = new ArrayList<ArrayList<Long>>();
    var threads = new ArrayList<Thread>();
    for (int n = 0; n < inFlight; n++) {
      var times = new ArrayList<Long>();
      every.add(times);
      var thread = new Thread(() -> work(call, end, times));
      threads.add(thread);
      thread.start();
    }
    for (var thread : threads) {
      thread.join();
    }
    double seconds = (System.nanoTime() - began) / 1e9;
    var micros = every.stream().flatMap(ArrayList::stream).map(String::valueOf).collect(Collectors.joining(","));
    return "{\"seconds\": " + seconds + ", \"micros\": [" + micros + "]}";
  }

  private static void work(Runnable call, long end, ArrayList<Long> times) {
    for (long start = System.nanoTime(); start < end; ) {
      try {
        call.run();
      } catch (RuntimeException error) {
        // A call that fails ends the measurement.
        System.err.println(error);
        System.exit(1);
      }
      long ended = System.nanoTime();
      times.add((ended - start) / 1_000);
      start = ended;
    }
  }
}

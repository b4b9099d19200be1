package io.keybroker;

import java.time.Duration;
import java.util.List;

/** What a call may be given beside what it is about. Immutable; a call passes over what says nothing of it. */
public final class Options {
  /** As the broker is configured. */
  public static final Options DEFAULT = new Options();

  Duration deadline;
  Reuse reuse;
  List<String> grantTokens = List.of();
  String keyId = "";
  long plaintextLength = -1;
  boolean releaseBeforeSignature;
  int dataKeyLength = 32;
  long messages = 1;
  long bytes;

  private Options() {}

  private Options(Options other) {
    deadline = other.deadline;
    reuse = other.reuse;
    grantTokens = other.grantTokens;
    keyId = other.keyId;
    plaintextLength = other.plaintextLength;
    releaseBeforeSignature = other.releaseBeforeSignature;
    dataKeyLength = other.dataKeyLength;
    messages = other.messages;
    bytes = other.bytes;
  }

  /** Ends the call with DEADLINE_EXCEEDED after so long. */
  public Options withDeadline(Duration deadline) {
    var made = new Options(this);
    made.deadline = deadline;
    return made;
  }

  /** Tightens the bounds of the data key. */
  public Options withReuse(Reuse reuse) {
    var made = new Options(this);
    made.reuse = reuse;
    return made;
  }

  /** Passes KMS grant tokens on. */
  public Options withGrantTokens(List<String> grantTokens) {
    var made = new Options(this);
    made.grantTokens = List.copyOf(grantTokens);
    return made;
  }

  /** Decrypts messages of this KMS key only. */
  public Options withKeyId(String keyId) {
    var made = new Options(this);
    made.keyId = keyId;
    return made;
  }

  /** Says how many bytes a stream will encrypt. Without it, the message takes a call to KMS of its own. */
  public Options withPlaintextLength(long length) {
    var made = new Options(this);
    made.plaintextLength = length;
    return made;
  }

  /** Lets a stream decrypt messages that are signed, too: nothing of the plaintext may be used before it has returned. */
  public Options withReleaseBeforeSignature() {
    var made = new Options(this);
    made.releaseBeforeSignature = true;
    return made;
  }

  /** The length of a data key in bytes, in place of 32. */
  public Options withLength(int length) {
    var made = new Options(this);
    made.dataKeyLength = length;
    return made;
  }

  /** Declares what a data key will encrypt, in place of one message: so many, of so many bytes together. */
  public Options withUse(long messages, long bytes) {
    var made = new Options(this);
    made.messages = messages;
    made.bytes = bytes;
    return made;
  }
}

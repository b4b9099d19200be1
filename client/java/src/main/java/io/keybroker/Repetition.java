package io.keybroker;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Whether and when a call is made again that failed: because its connection broke off, or the broker was not able to serve it. That is what gRPC
 * does in other languages.
 */
final class Repetition {
  private static final int ATTEMPTS = 5;
  private static final Duration FIRST_PAUSE = Duration.ofMillis(100);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  private final long end;
  private int attempts = 1;

  Repetition(Duration deadline) {
    end = System.nanoTime() + deadline.toNanos();
  }

  /** Returns when the call is to be made again; throws the error if it is not, or not before its deadline. */
  void await(KeyBrokerException error) {
    if (!error.isOfBrokerAway() || attempts == ATTEMPTS) {
      throw error;
    }
    long pause = pause(error).toNanos();
    if (pause >= end - System.nanoTime()) {
      throw error;
    }
    try {
      Thread.sleep(Duration.ofNanos(pause).toMillis());
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw error;
    }
    attempts++;
  }

  /** As the broker says, else twice as long as before, give or take a fifth. */
  private Duration pause(KeyBrokerException error) {
    if (error.retryDelay().isPresent()) {
      return error.retryDelay().get();
    }
    var doubled = FIRST_PAUSE.multipliedBy(1L << (attempts - 1));
    var pause = doubled.compareTo(LONGEST_PAUSE) < 0 ? doubled : LONGEST_PAUSE;
    return Duration.ofNanos((long) (pause.toNanos() * ThreadLocalRandom.current().nextDouble(0.8, 1.2)));
  }
}

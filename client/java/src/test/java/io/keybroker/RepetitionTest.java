package io.keybroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import org.junit.jupiter.api.Test;

/** Proves: a call is made again where the broker is away, four times at most and within its deadline, and never for another reason. */
class RepetitionTest {
  @Test
  void whatIsAwayIsCalledAgain() {
    for (var code : new Status.Code[] {Status.Code.UNAVAILABLE, Status.Code.UNKNOWN}) {
      var repetition = new Repetition(Duration.ofSeconds(10));
      var error = error(code);
      for (int again = 0; again < 4; again++) {
        repetition.await(error);
      }
      assertSame(error, assertThrows(KeyBrokerException.class, () -> repetition.await(error)));
    }
  }

  @Test
  void whatIsRefusedIsNot() {
    for (var code : Status.Code.values()) {
      if (code != Status.Code.OK && code != Status.Code.UNAVAILABLE && code != Status.Code.UNKNOWN) {
        var repetition = new Repetition(Duration.ofSeconds(10));
        assertEquals(code, assertThrows(KeyBrokerException.class, () -> repetition.await(error(code))).code());
      }
    }
  }

  @Test
  void anErrorIsNotHiddenBehindTheDeadline() {
    var repetition = new Repetition(Duration.ofMillis(50));
    long begun = System.nanoTime();
    assertThrows(KeyBrokerException.class, () -> repetition.await(error(Status.Code.UNAVAILABLE)));
    assertTrue(System.nanoTime() - begun < 50_000_000, "it waited");
  }

  @Test
  void whoIsInterruptedIsToldWhy() {
    Thread.currentThread().interrupt();
    var repetition = new Repetition(Duration.ofSeconds(10));
    assertThrows(KeyBrokerException.class, () -> repetition.await(error(Status.Code.UNAVAILABLE)));
    assertTrue(Thread.interrupted());
  }

  private static KeyBrokerException error(Status.Code code) {
    return KeyBrokerException.of(new StatusRuntimeException(code.toStatus()), Address.of("unix:/none", false));
  }
}

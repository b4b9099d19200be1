package io.keybroker;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Function;

/** One stream, driven by the thread that called: it sends while the connection takes more, and otherwise waits for what comes. */
final class Stream<Q, R> implements ClientResponseObserver<Q, R> {
  // Well below the largest request, and large enough that frames cost little.
  private static final int CHUNK = 65_536;

  /** What has happened: an answer, or one of these. */
  private enum Event { READY, END }

  /** What is done with an answer. */
  interface Sink<R> {
    void take(R answer) throws IOException;
  }

  private final BlockingQueue<Object> events = new LinkedBlockingQueue<>();
  private ClientCallStreamObserver<Q> call;

  @Override
  public void beforeStart(ClientCallStreamObserver<Q> stream) {
    call = stream;
    stream.disableAutoRequestWithInitial(1);
    stream.setOnReadyHandler(() -> events.add(Event.READY));
  }

  @Override
  public void onNext(R answer) {
    events.add(answer);
  }

  @Override
  public void onError(Throwable error) {
    events.add(error);
  }

  @Override
  public void onCompleted() {
    events.add(Event.END);
  }

  /** Sends the start and then all of the source, until the broker ends the stream. Whatever fails, the call has ended when it returns. */
  void run(Q start, InputStream source, Function<byte[], Q> part, Sink<R> sink) throws IOException {
    var buffer = new byte[CHUNK];
    try {
      boolean isSending = true;
      call.onNext(start);
      while (true) {
        while (isSending && call.isReady()) {
          int length = source.read(buffer);
          if (length < 0) {
            call.onCompleted();
            isSending = false;
          } else {
            call.onNext(part.apply(Arrays.copyOf(buffer, length)));
          }
        }
        Object event = events.take();
        if (event == Event.END) {
          return;
        } else if (event instanceof Throwable error) {
          throw error instanceof StatusRuntimeException known ? known : Status.fromThrowable(error).asRuntimeException();
        } else if (event != Event.READY) {
          @SuppressWarnings("unchecked")
          R answer = (R) event;
          sink.take(answer);
          call.request(1);
        }
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException("interrupted while the broker was awaited");
    } finally {
      // Of no effect on a call that has ended: a message without its end must not look as if it had one.
      call.cancel("left before its end", null);
      Arrays.fill(buffer, (byte) 0);
    }
  }
}

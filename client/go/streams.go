package keybroker

import (
	"context"
	"errors"
	"io"

	pb "github.com/key-broker/key-broker/client/go/keybrokerpb"
)

// chunk is well below the largest request, and large enough that frames cost little.
const chunk = 65536

// EncryptStream encrypts a message of any length, from r to w. What was written is whole only if it returns no error;
// then r is read to its end, else a Read of it may still be under way.
func (c *Client) EncryptStream(ctx context.Context, w io.Writer, r io.Reader, keyID string, encryptionContext map[string]string, options ...CallOption) error {
	ctx, cancel := bounded(traced(ctx), StreamDeadline)
	defer cancel()
	chosen := chosen(options)
	stream, err := c.broker.EncryptMessageStream(ctx)
	if err != nil {
		return c.explained(err)
	}
	start := &pb.EncryptMessageStart{
		KeyId: keyID, EncryptionContext: encryptionContext, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse, PlaintextLength: chosen.plaintextLength,
	}
	failed := make(chan error, 1)
	go func() {
		send := func(part []byte) error {
			return stream.Send(&pb.EncryptMessageStreamRequest{Part: &pb.EncryptMessageStreamRequest_Plaintext{Plaintext: part}})
		}
		err := stream.Send(&pb.EncryptMessageStreamRequest{Part: &pb.EncryptMessageStreamRequest_Start{Start: start}})
		sent(copyTo(r, err, send, stream.CloseSend), failed, cancel)
	}()
	receive := func() ([]byte, error) {
		reply, err := stream.Recv()
		return reply.GetMessage(), err
	}
	return c.received(w, receive, failed)
}

// DecryptStream decrypts a message of any length, from r to w. Every part that was written is authentic, but the end may be missing unless
// it returns no error.
func (c *Client) DecryptStream(ctx context.Context, w io.Writer, r io.Reader, encryptionContext map[string]string, options ...CallOption) (*DecryptedMessage, error) {
	ctx, cancel := bounded(traced(ctx), StreamDeadline)
	defer cancel()
	chosen := chosen(options)
	stream, err := c.broker.DecryptMessageStream(ctx)
	if err != nil {
		return nil, c.explained(err)
	}
	start := &pb.DecryptMessageStart{
		EncryptionContext: encryptionContext, KeyId: chosen.keyID, GrantTokens: chosen.grantTokens, Reuse: chosen.reuse,
		ReleaseBeforeSignature: chosen.beforeSignature,
	}
	failed := make(chan error, 1)
	go func() {
		send := func(part []byte) error {
			return stream.Send(&pb.DecryptMessageStreamRequest{Part: &pb.DecryptMessageStreamRequest_Message{Message: part}})
		}
		err := stream.Send(&pb.DecryptMessageStreamRequest{Part: &pb.DecryptMessageStreamRequest_Start{Start: start}})
		sent(copyTo(r, err, send, stream.CloseSend), failed, cancel)
	}()
	var opened *DecryptedMessage
	receive := func() ([]byte, error) {
		reply, err := stream.Recv()
		if err == nil && opened == nil {
			opened = &DecryptedMessage{nil, reply.GetEncryptionContext(), reply.GetKeyId(), provenance(reply.GetProvenance())}
		}
		return reply.GetPlaintext(), err
	}
	if err := c.received(w, receive, failed); err != nil {
		return nil, err
	}
	return opened, nil
}

// sent says why a source failed. Its message has no end then, and must not look as if it had.
func sent(err error, failed chan<- error, cancel context.CancelFunc) {
	failed <- err
	if err != nil {
		cancel()
	}
}

// copyTo sends what a reader has. It returns the reader's error; one of sending is told by whoever receives.
func copyTo(r io.Reader, started error, send func([]byte) error, end func() error) error {
	// A part is encoded when send returns: the buffer is free again.
	buffer := make([]byte, chunk)
	defer clear(buffer)
	for started == nil {
		n, err := r.Read(buffer)
		if n > 0 && send(buffer[:n]) != nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			// Its error, too, is told by whoever receives.
			_ = end()
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// received writes what comes, until its end, and says why there is none.
func (c *Client) received(w io.Writer, receive func() ([]byte, error), failed <-chan error) error {
	for {
		part, err := receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			select {
			case source := <-failed:
				if source != nil {
					return source
				}
			default:
			}
			return c.explained(err)
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
}

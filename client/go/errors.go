package keybroker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Error is a call that failed: errors.As finds it. Its text is for a person, its fields are for programs.
type Error struct {
	// Code is gRPC's.
	Code codes.Code
	// Message has the broker's words, with what to do next.
	Message string
	// Reason is the error's name, such as KEY_DISABLED: the table is in the contract. Empty where the broker did not answer.
	Reason string
	// Domain is kms.amazonaws.com where AWS KMS itself gave this answer, else keybroker.
	Domain string
	// RequestID is the broker's id of the call, in its audit trail.
	RequestID string
	// KMSRequestID is the requestID of KMS's answer, as AWS CloudTrail has it.
	KMSRequestID string
	// RetryDelay is how long to wait before trying again; 0 where trying again cannot help.
	RetryDelay time.Duration

	status *status.Status
}

// Denied tells whether the broker's own policy or configuration refused the call: the same call will fail again.
func (e *Error) Denied() bool {
	return e.Code == codes.PermissionDenied
}

// Retryable tells whether the same call may succeed later, RetryDelay from now. The client has tried several times already.
func (e *Error) Retryable() bool {
	return e.RetryDelay > 0 || e.Code == codes.Unavailable
}

func (e *Error) Error() string {
	var text strings.Builder
	text.WriteString(e.Message)
	for _, fact := range [][2]string{
		{"reason", e.Reason}, {"x-request-id", e.RequestID}, {"x-amzn-requestid", e.KMSRequestID},
	} {
		if fact[1] != "" {
			fmt.Fprintf(&text, " [%s %s]", fact[0], fact[1])
		}
	}
	return text.String()
}

// Is makes an ended context what the standard library calls it.
func (e *Error) Is(target error) bool {
	return (target == context.Canceled && e.Code == codes.Canceled) ||
		(target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded)
}

// GRPCStatus is for google.golang.org/grpc/status.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// brokeOff tells whether the connection ended the call, and not the broker, which always gives a reason. Every call may be made again.
func (e *Error) brokeOff() bool {
	return e.Code == codes.Unavailable && e.Reason == ""
}

func (c *Client) explained(err error, headers ...metadata.MD) *Error {
	sent := status.Convert(err)
	made := &Error{Code: sent.Code(), Message: sent.Message(), status: sent}
	for _, header := range headers {
		made.RequestID = first(header, "x-request-id", made.RequestID)
		made.KMSRequestID = first(header, "x-amzn-requestid", made.KMSRequestID)
	}
	for _, detail := range sent.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason, made.Domain = detail.GetReason(), detail.GetDomain()
		case *errdetails.RetryInfo:
			made.RetryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	if made.Code == codes.DeadlineExceeded && made.Reason == "" {
		made.Message = fmt.Sprintf("no answer from the broker at %s within the deadline: is it running there, and may this user connect? (%s)", c.target, sent.Message())
	}
	return made
}

func first(header metadata.MD, name, fallback string) string {
	if values := header.Get(name); len(values) > 0 {
		return values[0]
	}
	return fallback
}

// Package attest gets the program's configuration: a quote from the LAS, bound to a TLS 1.3 channel to the CAS, whose
// identity key is pinned in the measured configuration (docs/formats.md section 8).
package attest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	maxRequest = 1 << 20
	maxReply   = 64 << 20
)

// Refusal is an error that the other side sent.
type Refusal struct {
	Who, Code, Message string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s refused (%s): %s", r.Who, r.Code, r.Message) }

type envelope struct {
	V     int `json:"v"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// exchange sends one request and decodes one reply.
func exchange(channel io.ReadWriter, who string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if len(body) > maxRequest {
		return errors.New("the request is too long")
	}
	framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	if _, err := channel.Write(framed); err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	var header [4]byte
	if _, err := io.ReadFull(channel, header[:]); err != nil {
		return fmt.Errorf("%s closed without an answer: %w", who, err)
	}
	length := binary.BigEndian.Uint32(header[:])
	if length > maxReply {
		return fmt.Errorf("%s announced an answer of %d bytes, more than the %d that are allowed", who, length, maxReply)
	}
	// Read as it comes: an announced length alone must not allocate.
	answer, err := io.ReadAll(io.LimitReader(channel, int64(length)))
	if err != nil || len(answer) != int(length) {
		return fmt.Errorf("%s closed in the middle of its answer", who)
	}
	var outer envelope
	if err := json.Unmarshal(answer, &outer); err != nil {
		return fmt.Errorf("%s sent something that is no answer: %w", who, err)
	}
	if outer.V != 1 {
		return fmt.Errorf("%s speaks protocol version %d, this runtime 1", who, outer.V)
	}
	if outer.Error != nil {
		return &Refusal{who, outer.Error.Code, outer.Error.Message}
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return fmt.Errorf("%s sent an answer that can't be read: %w", who, err)
	}
	return nil
}

package attest

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

type channel struct {
	io.Reader
	io.Writer
}

func FuzzAnAnswerNeverPanics(f *testing.F) {
	answer := func(text string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...) }
	f.Add(answer(`{"v":1,"error":{"code":"bad-request","message":"no"}}`))
	f.Add(answer(`{"v":1,"config":{"arguments":["a"],"environment":{"A":"1"}}}`))
	f.Add(answer(`{"v":2}`))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(_ *testing.T, sent []byte) {
		var reply map[string]any
		_ = exchange(channel{bytes.NewReader(sent), io.Discard}, "the CAS", map[string]int{"v": 1}, &reply)
	})
}

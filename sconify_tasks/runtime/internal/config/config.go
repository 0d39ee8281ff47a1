// Package config decodes the measured configuration of a sconified binary (docs/formats.md section 4) and holds the
// environment of the container against it.
package config

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	pageSize   = 4096
	maxConfig  = 1 << 16
	maxBytes   = 1 << 40
	maxThreads = 256
)

// Binary tells the original program.
type Binary struct {
	Path      string
	SHA256    [32]byte
	Size      int64
	Protected bool
}

// Config is the decoded configuration. What it says is part of MRENCLAVE.
type Config struct {
	Heap, Stack    uint64
	Dlopen         int
	Fork, Mprotect int
	Threads        int
	Binary         Binary
	BinaryFS       string
	CASIdentity    []byte
	Pages          []byte
}

type document struct {
	V        *int    `json:"v"`
	Heap     *uint64 `json:"heap"`
	Stack    *uint64 `json:"stack"`
	Dlopen   *int    `json:"dlopen"`
	Fork     *int    `json:"fork"`
	Mprotect *int    `json:"mprotect"`
	Threads  *int    `json:"threads"`
	Binary   *struct {
		Path      *string `json:"path"`
		SHA256    *string `json:"sha256"`
		Size      *int64  `json:"size"`
		Protected *bool   `json:"protected"`
	} `json:"binary"`
	BinaryFS json.RawMessage `json:"binary_fs"`
	CASSPKI  json.RawMessage `json:"cas_spki"`
}

// Parse decodes the pages of the section `.sconify.config`.
func Parse(pages []byte) (*Config, error) {
	if len(pages) == 0 || len(pages)%pageSize != 0 || len(pages) > maxConfig {
		return nil, errors.New("the configuration's size is not a number of pages")
	}
	text := bytes.TrimRight(pages, "\x00")
	if len(pages)-len(text) >= pageSize {
		return nil, errors.New("the configuration is padded by more than a page")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("the configuration is not UTF-8")
	}
	if err := refuseDuplicates(text); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var raw document
	if err := decoder.Decode(&raw); err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("bytes follow the configuration")
	}
	return raw.check(pages)
}

func (d *document) check(pages []byte) (*Config, error) {
	if d.V == nil || d.Heap == nil || d.Stack == nil || d.Dlopen == nil || d.Fork == nil || d.Mprotect == nil ||
		d.Threads == nil || d.Binary == nil || d.BinaryFS == nil || d.CASSPKI == nil || d.Binary.Path == nil ||
		d.Binary.SHA256 == nil || d.Binary.Size == nil || d.Binary.Protected == nil {
		return nil, errors.New("the configuration lacks a key")
	}
	if *d.V != 1 {
		return nil, fmt.Errorf("configuration version %d is not known to this runtime (it knows 1)", *d.V)
	}
	result := &Config{
		Heap: *d.Heap, Stack: *d.Stack, Dlopen: *d.Dlopen, Fork: *d.Fork, Mprotect: *d.Mprotect, Threads: *d.Threads,
		Binary: Binary{Path: *d.Binary.Path, Size: *d.Binary.Size, Protected: *d.Binary.Protected}, Pages: pages,
	}
	switch {
	case result.Heap%pageSize != 0 || result.Stack%pageSize != 0 || result.Heap > maxBytes || result.Stack > maxBytes:
		return nil, errors.New("heap and stack must be multiples of 4096")
	case result.Dlopen < 0 || result.Dlopen > 2 || result.Fork>>1 != 0 || result.Mprotect>>1 != 0:
		return nil, errors.New("dlopen, fork or mprotect is out of range")
	case result.Threads < 1 || result.Threads > maxThreads:
		return nil, errors.New("threads must be 1 to 256")
	case !path.IsAbs(result.Binary.Path) || path.Clean(result.Binary.Path) != result.Binary.Path || result.Binary.Size < 0 ||
		result.Binary.Size > maxBytes || strings.IndexByte(result.Binary.Path, 0) >= 0:
		return nil, errors.New("the binary's path or size is out of range")
	}
	digest, err := digestOf(*d.Binary.SHA256)
	if err != nil {
		return nil, fmt.Errorf("binary.sha256: %w", err)
	}
	copy(result.Binary.SHA256[:], digest)
	if result.CASIdentity, err = optionalDigest(d.CASSPKI); err != nil {
		return nil, fmt.Errorf("cas_spki: %w", err)
	}
	root, err := optionalDigest(d.BinaryFS)
	if err != nil {
		return nil, fmt.Errorf("binary_fs: %w", err)
	}
	result.BinaryFS = hex.EncodeToString(root)
	return result, nil
}

func optionalDigest(raw json.RawMessage) ([]byte, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, err
	}
	return digestOf(text)
}

func digestOf(text string) ([]byte, error) {
	digest, err := hex.DecodeString(text)
	if err != nil || len(digest) != 32 || strings.ToLower(text) != text {
		return nil, errors.New("not 64 lower-case hex digits")
	}
	return digest, nil
}

// refuseDuplicates walks the tokens: encoding/json takes the last of two equal keys in silence, another reader the first.
func refuseDuplicates(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	var walk func() error
	walk = func() error {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("the configuration: %w", err)
		}
		delimiter, _ := token.(json.Delim)
		seen := make(map[string]bool)
		for delimiter != 0 && decoder.More() {
			if delimiter == '{' {
				key, err := decoder.Token()
				if err != nil {
					return fmt.Errorf("the configuration: %w", err)
				}
				name, _ := key.(string)
				if seen[name] {
					return fmt.Errorf("the configuration has %q twice", name)
				}
				seen[name] = true
			}
			if err := walk(); err != nil {
				return err
			}
		}
		if delimiter != 0 {
			_, err = decoder.Token()
		}
		return err
	}
	return walk()
}

// Contradiction is a SCONE_* variable that does not say what was measured.
type Contradiction struct {
	Variable, Given, Measured, Option string
}

func (c *Contradiction) Error() string {
	return fmt.Sprintf("%s=%s contradicts the measured configuration (%s); remove it, or rebuild the image with --%s=%s",
		c.Variable, c.Given, c.Measured, c.Option, c.Given)
}

// Check compares the variables that may only repeat the measured configuration.
func (c *Config) Check(lookup func(string) (string, bool)) error {
	for _, item := range [...]struct {
		variable, option string
		measured         uint64
	}{
		{"SCONE_HEAP", "heap", c.Heap},
		{"SCONE_STACK", "stack", c.Stack},
		{"SCONE_ALLOW_DLOPEN", "dlopen", uint64(c.Dlopen)},
		{"SCONE_FORK", "fork", uint64(c.Fork)},
		{"SCONE_MPROTECT", "mprotect", uint64(c.Mprotect)},
	} {
		given, present := lookup(item.variable)
		if !present || given == "" {
			continue
		}
		if value, err := ParseSize(given); err != nil || value != item.measured {
			return &Contradiction{item.variable, given, strconv.FormatUint(item.measured, 10), item.option}
		}
	}
	return nil
}

// ParseSize reads a number of bytes with an optional binary suffix: 4096, 64K, 256m, 1G.
func ParseSize(text string) (uint64, error) {
	shift := 0
	if text != "" {
		if index := strings.IndexByte("KMGT", text[len(text)-1]&^0x20); index >= 0 && text[len(text)-1] >= 'A' {
			shift, text = 10*(index+1), text[:len(text)-1]
		}
	}
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil || value > math.MaxUint64>>shift {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	return value << shift, nil
}

// Settings returns what SCONE_VERSION=1 prints, without the measurement.
func (c *Config) Settings() []string {
	return []string{
		"export SCONE_HEAP=" + strconv.FormatUint(c.Heap, 10),
		"export SCONE_STACK=" + strconv.FormatUint(c.Stack, 10),
		"export SCONE_ALLOW_DLOPEN=" + strconv.Itoa(c.Dlopen),
		"export SCONE_FORK=" + strconv.Itoa(c.Fork),
		"export SCONE_MPROTECT=" + strconv.Itoa(c.Mprotect),
		"export SCONE_TCS=" + strconv.Itoa(c.Threads),
		"export SCONE_MODE=sim",
	}
}

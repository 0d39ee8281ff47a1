package fspf

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

func load(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile("../../../../tests/vectors/" + name)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIPPED: tests/vectors is not beside the module")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	content, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

type fileVector struct {
	Name    string
	FSPFKey string `json:"fspf_key"`
	Size    uint64
	Salt    string
	XName   string `json:"x_name"`
	Stored  string
	Of      uint64
	Parts   []json.RawMessage
}

func pattern(size uint64) []byte {
	content := make([]byte, size)
	for index := range content {
		content[index] = byte(index ^ index>>8 ^ index>>16)
	}
	return content
}

func TestFilesOfTheVectorsAreReadAndDamagedOnesRefused(t *testing.T) {
	var vectors struct{ Cases, Refused []fileVector }
	load(t, "file.json", &vectors)
	whole := make(map[uint64][]byte)
	for _, vector := range vectors.Cases {
		whole[vector.Size] = unhex(t, vector.Stored)
		var out bytes.Buffer
		if err := decryptVector(t, &out, vector, whole[vector.Size]); err != nil {
			t.Errorf("%s: %v", vector.Name, err)
		}
		if !bytes.Equal(out.Bytes(), pattern(vector.Size)) {
			t.Errorf("%s: other content", vector.Name)
		}
		if name := StoredName(Key(unhex(t, vector.FSPFKey)), Digest(unhex(t, vector.Salt))); name != vector.XName {
			t.Errorf("%s: stored name is %s", vector.Name, name)
		}
	}
	for _, vector := range vectors.Refused {
		stored := unhex(t, vector.Stored)
		for _, part := range vector.Parts {
			var text string
			var edges [2]int
			if json.Unmarshal(part, &text) == nil {
				stored = append(stored, unhex(t, text)...)
			} else if err := json.Unmarshal(part, &edges); err == nil {
				stored = append(stored, whole[vector.Of][edges[0]:edges[1]]...)
			} else {
				t.Fatal(err)
			}
		}
		if err := decryptVector(t, &bytes.Buffer{}, vector, stored); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s was not refused: %v", vector.Name, err)
		}
	}
}

func decryptVector(t *testing.T, out *bytes.Buffer, vector fileVector, stored []byte) error {
	t.Helper()
	return Decrypt(out, bytes.NewReader(stored), int64(len(stored)), Key(unhex(t, vector.FSPFKey)), Digest(unhex(t, vector.Salt)), vector.Size)
}

type manifestVector struct {
	Name    string
	FSPFKey string `json:"fspf_key"`
	FSPFTag string `json:"fspf_tag"`
	Stored  string
	Entries []struct {
		Path, SHA256, Target string
		Kind, Class          uint8
		Flags                uint16
		Mode, UID, GID       uint32
		Seconds              int64  `json:"mtime_seconds"`
		Nanoseconds          uint32 `json:"mtime_nanoseconds"`
		Size                 uint64
		Major, Minor         uint32
		Xattrs               [][]string
	}
}

func TestManifestsOfTheVectorsAreReadAndDamagedOnesRefused(t *testing.T) {
	var vectors struct{ Cases, Refused []manifestVector }
	load(t, "manifest.json", &vectors)
	open := func(vector manifestVector) (*Manifest, error) {
		return Open(unhex(t, vector.Stored), Key(unhex(t, vector.FSPFKey)), Tag(unhex(t, vector.FSPFTag)))
	}
	for _, vector := range vectors.Cases {
		manifest, err := open(vector)
		if err != nil {
			t.Fatalf("%s: %v", vector.Name, err)
		}
		if len(manifest.Entries) != len(vector.Entries) {
			t.Fatalf("%s: %d entries", vector.Name, len(manifest.Entries))
		}
		for index, expected := range vector.Entries {
			entry := manifest.Entries[index]
			if entry.Path != string(unhex(t, expected.Path)) || uint8(entry.Kind) != expected.Kind || uint8(entry.Class) != expected.Class ||
				entry.Flags != expected.Flags || entry.Mode != expected.Mode || entry.UID != expected.UID || entry.GID != expected.GID ||
				entry.Seconds != expected.Seconds || entry.Nanoseconds != expected.Nanoseconds || entry.Size != expected.Size ||
				entry.Target != string(unhex(t, expected.Target)) || entry.Major != expected.Major || entry.Minor != expected.Minor ||
				len(entry.Xattrs) != len(expected.Xattrs) || (expected.SHA256 != "" && hex.EncodeToString(entry.Content[:]) != expected.SHA256) {
				t.Errorf("%s: %+v is not %+v", vector.Name, entry, expected)
			}
		}
	}
	for _, vector := range vectors.Refused {
		if _, err := open(vector); err == nil {
			t.Errorf("%s was not refused", vector.Name)
		}
	}
}

func FuzzAManifestNeverPanics(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 0, '/', 0, 0, 0, 0, 0, 0})
	var vectors struct{ Cases []struct{ Body string } }
	content, err := os.ReadFile("../../../../tests/vectors/manifest.json")
	if err != nil || json.Unmarshal(content, &vectors) != nil {
		f.Log("tests/vectors is not beside the module: fuzzing starts from one seed")
	}
	for _, vector := range vectors.Cases {
		body, err := hex.DecodeString(vector.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		manifest, err := Parse(body)
		if err != nil {
			return
		}
		for _, entry := range manifest.Entries {
			if manifest.Entry(entry.Path) != entry {
				t.Errorf("%q is not found", entry.Path)
			}
			_ = manifest.Class(entry.Path)
		}
	})
}

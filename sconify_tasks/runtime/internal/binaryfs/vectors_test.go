package binaryfs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"sconify.local/runtime/internal/fspf"
)

type vector struct {
	Name, Root, Header, Index string
	Data                      []int
	Files                     map[string]int
}

func pattern(size int) []byte {
	content := make([]byte, size)
	for index := range content {
		content[index] = byte(index ^ index>>8 ^ index>>16)
	}
	return content
}

func (v vector) section(t *testing.T) []byte {
	t.Helper()
	header, err := hex.DecodeString(v.Header)
	if err != nil {
		t.Fatal(err)
	}
	index, err := hex.DecodeString(v.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range v.Data {
		header = append(header, pattern(size)...)
	}
	return append(header, index...)
}

func open(stored []byte, root string) (*Files, error) {
	return Open(io.NewSectionReader(bytes.NewReader(stored), 0, int64(len(stored))), root)
}

func load(t *testing.T) (vectors struct{ Cases, Refused []vector }) {
	t.Helper()
	content, err := os.ReadFile("../../../../tests/vectors/binary_fs.json")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIPPED: tests/vectors is not beside the module")
	}
	if err == nil {
		err = json.Unmarshal(content, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	return vectors
}

func TestSectionsOfTheVectorsAreReadAndWrongOnesRefused(t *testing.T) {
	vectors := load(t)
	for _, vector := range vectors.Cases {
		files, err := open(vector.section(t), vector.Root)
		if err != nil {
			t.Fatalf("%s: %v", vector.Name, err)
		}
		embedded := 0
		for _, entry := range files.Manifest.Entries {
			if entry.Embedded == nil {
				continue
			}
			embedded++
			var out bytes.Buffer
			if err := files.Copy(&out, entry); err != nil {
				t.Errorf("%s: %s: %v", vector.Name, entry.Path, err)
			}
			if size, known := vector.Files[hex.EncodeToString([]byte(entry.Path))]; !known || !bytes.Equal(out.Bytes(), pattern(size)) {
				t.Errorf("%s: %s has another content", vector.Name, entry.Path)
			}
		}
		if embedded != len(vector.Files) {
			t.Errorf("%s: %d files are embedded", vector.Name, embedded)
		}
	}
	if len(vectors.Refused) < 20 {
		t.Errorf("only %d refused cases", len(vectors.Refused))
	}
	for _, vector := range vectors.Refused {
		if _, err := open(vector.section(t), vector.Root); err == nil {
			t.Errorf("%s was not refused", vector.Name)
		}
	}
}

func TestAChangedByteOfTheDataIsRefusedWhenItIsRead(t *testing.T) {
	vector := load(t).Cases[1]
	stored := vector.section(t)
	stored[headerSize] ^= 1
	files, err := open(stored, vector.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Copy(io.Discard, files.Manifest.Entry("/app/equal")); !errors.Is(err, fspf.ErrDamaged) {
		t.Errorf("not refused: %v", err)
	}
	if err := files.Copy(io.Discard, files.Manifest.Entry("/app/large")); err != nil {
		t.Errorf("another file is refused: %v", err)
	}
}

func FuzzAnIndexNeverPanics(f *testing.F) {
	f.Add([]byte{17, 0, 0, 0, 1, 0, 0, 0, 1, 0, '/', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, uint64(0))
	var vectors struct{ Cases []vector }
	content, err := os.ReadFile("../../../../tests/vectors/binary_fs.json")
	if err != nil || json.Unmarshal(content, &vectors) != nil {
		f.Log("tests/vectors is not beside the module: fuzzing starts from one seed")
	}
	for _, vector := range vectors.Cases {
		index, err := hex.DecodeString(vector.Index)
		if err != nil {
			f.Fatal(err)
		}
		var data uint64
		for _, size := range vector.Data {
			data += uint64(size)
		}
		f.Add(index, data)
	}
	f.Fuzz(func(t *testing.T, index []byte, data uint64) {
		manifest, err := decode(index, data)
		if err != nil {
			return
		}
		for _, entry := range manifest.Entries {
			if place := entry.Embedded; place != nil && (place.Offset > data || place.Size > data-place.Offset) {
				t.Errorf("%q lies outside of the data", entry.Path)
			}
		}
	})
}

package elfsec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// The ELF files of the vectors are the seeds; without them the fuzzer starts from nothing.
func seeds(f *testing.F) {
	f.Helper()
	var vectors struct{ Cases []struct{ ELF string } }
	content, err := os.ReadFile("../../../../tests/vectors/mrenclave.json")
	if err != nil || json.Unmarshal(content, &vectors) != nil {
		f.Log("tests/vectors is not beside the module: fuzzing starts from nothing")
	}
	for _, vector := range vectors.Cases {
		image, err := hex.DecodeString(vector.ELF)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image)
	}
}

func FuzzAFileNeverPanicsAndNothingLiesOutsideOfIt(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, image []byte) {
		file, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		_ = file.CheckTable()
		_ = file.InterpreterHeader()
		if name, err := file.Interpreter(); err == nil && len(name) > maxInterpreter {
			t.Errorf("an interpreter of %d bytes", len(name))
		}
		for _, name := range []string{".sconify.config", ".text", ""} {
			if section, err := file.Section(name); err == nil && section != nil && section.Size() > int64(len(image)) {
				t.Errorf("a section of %d bytes", section.Size())
			}
		}
		segments, err := file.Segments()
		if err != nil {
			return
		}
		for _, segment := range segments {
			if content, err := file.ReadSegment(segment); err == nil && len(content) > len(image) {
				t.Errorf("a segment of %d bytes", len(content))
			}
		}
	})
}

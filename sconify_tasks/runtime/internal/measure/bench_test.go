package measure

import (
	"os"
	"testing"

	"sconify.local/runtime/internal/elfsec"
)

// BenchmarkEnclave measures the test's own program: a runtime of about the real one's size.
func BenchmarkEnclave(b *testing.B) {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	details, err := file.Stat()
	if err != nil {
		b.Fatal(err)
	}
	image, err := elfsec.Open(file, details.Size())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Enclave(image, Layout{Config: make([]byte, page), Threads: 2}); err != nil {
			b.Fatal(err)
		}
	}
}

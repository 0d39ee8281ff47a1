package shield

import (
	"crypto/sha256"
	"io"
	"os"
)

func hashFile(opened *os.File) (digest [32]byte, err error) {
	state := sha256.New()
	if _, err := io.Copy(state, opened); err != nil {
		return digest, err
	}
	state.Sum(digest[:0])
	return digest, nil
}

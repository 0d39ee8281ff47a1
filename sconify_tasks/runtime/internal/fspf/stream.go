// Package fspf reads protected files and their manifest (docs/formats.md sections 1 and 2). It never returns a byte that
// was not authenticated, and every malformation is an error of its own.
package fspf

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

const (
	chunkSize = 65536
	tagSize   = 16

	fileLabel     = "sconify/file/1"
	manifestLabel = "sconify/manifest/1"
	nameLabel     = "sconify/name/1"
)

// Key is the fspf_key of a session.
type Key [32]byte

// Digest is a SHA-256.
type Digest [32]byte

// ErrDamaged is the root of everything that is wrong with stored bytes, as opposed to a disk that fails.
var ErrDamaged = errors.New("damaged")

// StoredSize returns the length of the stored form of a file.
func StoredSize(size uint64) uint64 {
	return size + tagSize*max(1, (size+chunkSize-1)/chunkSize)
}

// StoredName returns the name under /fspf/x of an executable's ciphertext.
func StoredName(key Key, salt Digest) string {
	name, err := hkdf.Key(sha256.New, key[:], salt[:], nameLabel, 16)
	if err != nil {
		panic(err) // the lengths are constants
	}
	return hex.EncodeToString(name)
}

func newAEAD(key Key, salt Digest, label string) (cipher.AEAD, error) {
	fileKey, err := hkdf.Key(sha256.New, key[:], salt[:], label, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(fileKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Decrypt copies the content of an encrypted file of the given size to out. What was written before an error is
// authentic but incomplete: the caller throws it away.
func Decrypt(out io.Writer, stored io.ReaderAt, storedSize int64, key Key, salt Digest, size uint64) error {
	return decrypt(out, stored, storedSize, key, salt, size, fileLabel)
}

func decrypt(out io.Writer, stored io.ReaderAt, storedSize int64, key Key, salt Digest, size uint64, label string) error {
	if size > 1<<62 || storedSize < 0 || uint64(storedSize) != StoredSize(size) {
		return fmt.Errorf("%w: %d bytes are stored where %d belong", ErrDamaged, storedSize, StoredSize(size))
	}
	aead, err := newAEAD(key, salt, label)
	if err != nil {
		return err
	}
	chunks := max(1, (size+chunkSize-1)/chunkSize)
	buffer := make([]byte, min(uint64(storedSize), chunkSize+tagSize))
	digest := sha256.New()
	var nonce [12]byte
	for index := range chunks {
		length := min(uint64(chunkSize), size-index*chunkSize) + tagSize
		if _, err := stored.ReadAt(buffer[:length], int64(index*(chunkSize+tagSize))); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		binary.BigEndian.PutUint64(nonce[3:], index)
		if index == chunks-1 {
			nonce[11] = 1 // without the flag, a file cut at a chunk border would pass for a shorter one
		}
		plain, err := aead.Open(buffer[:0], nonce[:], buffer[:length], nil)
		if err != nil {
			return fmt.Errorf("%w: chunk %d does not authenticate", ErrDamaged, index)
		}
		digest.Write(plain)
		if _, err := out.Write(plain); err != nil {
			return err
		}
	}
	return compare(digest, salt)
}

// Verify copies the content of an authenticated file to out.
func Verify(out io.Writer, stored io.ReaderAt, storedSize int64, content Digest, size uint64) error {
	if storedSize < 0 || uint64(storedSize) != size {
		return fmt.Errorf("%w: it has %d bytes, the manifest says %d", ErrDamaged, storedSize, size)
	}
	digest := sha256.New()
	buffer := make([]byte, max(1, min(size, 4*chunkSize))) // CopyBuffer refuses an empty one
	both := io.MultiWriter(out, digest)
	if count, err := io.CopyBuffer(both, struct{ io.Reader }{io.NewSectionReader(stored, 0, storedSize)}, buffer); err != nil {
		return err
	} else if uint64(count) != size {
		return fmt.Errorf("%w: it ended after %d of %d bytes", ErrDamaged, count, size)
	}
	return compare(digest, content)
}

func compare(digest hash.Hash, expected Digest) error {
	if Digest(digest.Sum(nil)) != expected {
		return fmt.Errorf("%w: its content is not the manifest's", ErrDamaged)
	}
	return nil
}

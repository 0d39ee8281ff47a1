// Package binaryfs reads the file system that is embedded in the running binary (docs/formats.md section 10). The measured
// configuration names the index by its root hash, the index every chunk by its SHA-256: no byte is given out unchecked.
package binaryfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"sconify.local/runtime/internal/fspf"
)

const (
	magic      = "SCONBNFS"
	headerSize = 32
	chunkSize  = 65536
	digestSize = 32
	maxIndex   = 512 << 20
	maxData    = 1 << 40
)

// Files is an embedded file system whose index was verified.
type Files struct {
	Manifest *fspf.Manifest
	data     *io.SectionReader
}

// Open reads and checks the index of a section.
func Open(section *io.SectionReader, root string) (*Files, error) {
	header := make([]byte, headerSize)
	if _, err := section.ReadAt(header, 0); err != nil {
		return nil, fmt.Errorf("%w: the embedded file system is too short", fspf.ErrDamaged)
	}
	data, size := binary.LittleEndian.Uint64(header[16:]), binary.LittleEndian.Uint64(header[24:])
	switch {
	case string(header[:8]) != magic:
		return nil, fmt.Errorf("%w: this is no embedded file system", fspf.ErrDamaged)
	case binary.LittleEndian.Uint32(header[8:]) != 1:
		return nil, fmt.Errorf("binary-fs version %d is not known to this runtime (it knows 1)", binary.LittleEndian.Uint32(header[8:]))
	case binary.LittleEndian.Uint32(header[12:]) != 0:
		return nil, errors.New("the embedded file system has flags that this runtime does not know")
	case data > maxData || size > maxIndex || headerSize+data+size != uint64(section.Size()):
		return nil, fmt.Errorf("%w: the embedded file system's lengths do not fill its section", fspf.ErrDamaged)
	}
	index := make([]byte, size)
	if _, err := section.ReadAt(index, int64(headerSize+data)); err != nil {
		return nil, err
	}
	state := sha256.New()
	state.Write(header)
	state.Write(index)
	if hex.EncodeToString(state.Sum(nil)) != root {
		return nil, fmt.Errorf("%w: the embedded file system is not the one that was measured", fspf.ErrDamaged)
	}
	manifest, err := decode(index, data)
	if err != nil {
		return nil, fmt.Errorf("the embedded file system: %w", err)
	}
	return &Files{Manifest: manifest, data: io.NewSectionReader(section, headerSize, int64(data))}, nil
}

func decode(index []byte, data uint64) (*fspf.Manifest, error) {
	body, rest, ok := cut(index, 4)
	if !ok {
		return nil, errTruncated
	}
	manifest, err := fspf.Parse(body)
	if err != nil {
		return nil, err
	}
	if manifest.Class("/") != fspf.ClassAuthenticated {
		return nil, errors.New("its root is not authenticated")
	}
	for _, region := range manifest.Regions {
		if region.Class == fspf.ClassEncrypted {
			return nil, fmt.Errorf("the region %q can't be encrypted", region.Path)
		}
	}
	return manifest, extents(manifest, rest, data)
}

var errTruncated = errors.New("it ends in the middle of a field")

// cut takes a length of so many bytes, and that many bytes.
func cut(from []byte, width int) (taken, rest []byte, ok bool) {
	if len(from) < width {
		return nil, nil, false
	}
	length := uint64(binary.LittleEndian.Uint32(from))
	if length > uint64(len(from)-width) {
		return nil, nil, false
	}
	return from[width : width+int(length)], from[width+int(length):], true
}

// extents gives the entries their places. They fill the data without gap or overlap, in the order of the entries; equal
// contents share one place.
func extents(manifest *fspf.Manifest, rest []byte, data uint64) error {
	if len(rest) < 4 {
		return errTruncated
	}
	count := binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	seen := make(map[[sha256.Size]byte]*fspf.Extent)
	end, previous := uint64(0), -1
	for range count {
		if len(rest) < 12 {
			return errTruncated
		}
		number, offset := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint64(rest[4:])
		rest = rest[12:]
		if int64(number) <= int64(previous) || int64(number) >= int64(len(manifest.Entries)) {
			return fmt.Errorf("the extent of entry %d is out of order", number)
		}
		previous = int(number)
		entry := manifest.Entries[number]
		if entry.Kind != fspf.KindFile || entry.Flags&fspf.FlagMain != 0 || entry.Size > data {
			return fmt.Errorf("%q can't have an extent", entry.Path)
		}
		length := (entry.Size + chunkSize - 1) / chunkSize * digestSize
		if length > uint64(len(rest)) {
			return errTruncated
		}
		digests := rest[:length:length]
		rest = rest[length:]
		if fspf.Digest(sha256.Sum256(digests)) != entry.Content {
			return fmt.Errorf("%q is not named by the digests of its chunks", entry.Path)
		}
		before := seen[entry.Content]
		expected := end
		if before != nil {
			expected = before.Offset
		}
		if offset != expected || before != nil && before.Size != entry.Size {
			return fmt.Errorf("the extent of %q is not where it belongs", entry.Path)
		}
		if before == nil {
			before = &fspf.Extent{Offset: offset, Size: entry.Size, Digests: digests}
			seen[entry.Content] = before
			end += entry.Size
		}
		entry.Embedded = before
	}
	if len(rest) != 0 || end != data {
		return fmt.Errorf("its extents end at %d, its data at %d, and %d bytes follow", end, data, len(rest))
	}
	return nil
}

// Copy writes the content of an embedded file, chunk by verified chunk. What was written before an error is authentic
// but incomplete.
func (f *Files) Copy(out io.Writer, entry *fspf.Entry) error {
	place := entry.Embedded
	buffer := make([]byte, min(place.Size, chunkSize))
	for at := uint64(0); at < place.Size; at += chunkSize {
		chunk := buffer[:min(chunkSize, place.Size-at)]
		if _, err := f.data.ReadAt(chunk, int64(place.Offset+at)); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		digest := sha256.Sum256(chunk)
		if !bytes.Equal(digest[:], place.Digests[at/chunkSize*digestSize:][:digestSize]) {
			return fmt.Errorf("%w: chunk %d of it in the binary is not the measured one", fspf.ErrDamaged, at/chunkSize)
		}
		if _, err := out.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

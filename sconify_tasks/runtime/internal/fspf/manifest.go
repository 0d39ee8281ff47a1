package fspf

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
)

const (
	manifestMagic  = "SCONFSPF"
	manifestHeader = 8 + 4 + 4 + 32
	// MaxManifest bounds what is read from the disk before it was authenticated.
	MaxManifest = 512 << 20
	maxPath     = 4096
)

// Tag is the fspf_tag of a session.
type Tag [16]byte

// Open checks a stored manifest against the session's tag, decrypts and decodes it.
func Open(stored []byte, key Key, tag Tag) (*Manifest, error) {
	digest := sha256.Sum256(stored)
	if subtle.ConstantTimeCompare(digest[:16], tag[:]) != 1 {
		return nil, fmt.Errorf("%w: the manifest is not the one of the session (another fspf_tag)", ErrDamaged)
	}
	if len(stored) < manifestHeader+tagSize || string(stored[:8]) != manifestMagic {
		return nil, fmt.Errorf("%w: this is no manifest", ErrDamaged)
	}
	if version := binary.LittleEndian.Uint32(stored[8:]); version != 1 {
		return nil, fmt.Errorf("manifest version %d is not known to this runtime (it knows 1)", version)
	}
	if binary.LittleEndian.Uint32(stored[12:]) != 0 {
		return nil, errors.New("the manifest has flags that this runtime does not know")
	}
	var salt Digest
	copy(salt[:], stored[16:])
	sealed := stored[manifestHeader:]
	chunks := (uint64(len(sealed)) + chunkSize + tagSize - 1) / (chunkSize + tagSize)
	if uint64(len(sealed)) < chunks*tagSize {
		return nil, fmt.Errorf("%w: the manifest's length is impossible", ErrDamaged)
	}
	size := uint64(len(sealed)) - chunks*tagSize
	var body bytes.Buffer
	body.Grow(int(size))
	if err := decrypt(&body, bytes.NewReader(sealed), int64(len(sealed)), key, salt, size, manifestLabel); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return Parse(body.Bytes())
}

// Parse decodes a manifest's body and checks every rule of the format.
func Parse(body []byte) (*Manifest, error) {
	in := &cursor{rest: body}
	regions := in.regions()
	entries := in.entries()
	if in.err == nil && len(in.rest) != 0 {
		in.fail("%d bytes follow the last entry", len(in.rest))
	}
	if in.err != nil {
		return nil, fmt.Errorf("manifest: %w", in.err)
	}
	m := index(regions, entries)
	return m, m.check()
}

// check holds what the walk relies on beyond the format: the ancestors of an entry are directories that no link on the disk
// can replace, and a file has the class of its region.
func (m *Manifest) check() error {
	if _, found := m.regions["/"]; !found {
		return errors.New("manifest: there is no region for /")
	}
	for _, entry := range m.Entries {
		if err := m.checkEntry(entry); err != nil {
			return fmt.Errorf("manifest: %q %w", entry.Path, err)
		}
	}
	return nil
}

func (m *Manifest) checkEntry(entry *Entry) error {
	region := m.Class(entry.Path)
	switch {
	case entry.Kind == KindFile && entry.Class != max(region, ClassAuthenticated):
		return errors.New("has another class than its region")
	case entry.Kind == KindFile && (entry.Class == ClassEncrypted && entry.Mode&0o111 != 0) != (entry.Flags&FlagStoredX != 0):
		return errors.New("must be stored apart exactly if it is encrypted and executable")
	case entry.Kind != KindFile && entry.Kind != KindSymlink && entry.Flags&^FlagPinned != 0:
		return errors.New("has flags of a file and is none")
	case entry.Path == "/" && entry.Kind != KindDirectory:
		return errors.New("is not a directory")
	case entry.Path == "/" || path.Dir(entry.Path) == "/":
		return nil
	}
	parent := m.byPath[path.Dir(entry.Path)]
	if parent == nil || parent.Kind != KindDirectory {
		return errors.New("lies in no directory of the manifest")
	}
	if m.Class(parent.Path) == ClassNone && parent.Flags&FlagPinned == 0 {
		return errors.New("lies in a directory that is not pinned")
	}
	return nil
}

// cursor reads fields until the first error, which it keeps.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) fail(format string, arguments ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, arguments...)
	}
}

func (c *cursor) take(count int) []byte {
	if c.err != nil || count > len(c.rest) {
		c.fail("it ends in the middle of a field")
		return make([]byte, min(count, 64))
	}
	taken := c.rest[:count]
	c.rest = c.rest[count:]
	return taken
}

func (c *cursor) u8() uint8   { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.LittleEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return binary.LittleEndian.Uint64(c.take(8)) }

func (c *cursor) path(previous string, first bool) string {
	name := string(c.take(int(c.u16())))
	switch {
	case c.err != nil:
	case len(name) == 0 || len(name) >= maxPath || name[0] != '/' || path.Clean(name) != name || strings.IndexByte(name, 0) >= 0:
		c.fail("%q is not a clean absolute path", name)
	case !first && name <= previous:
		c.fail("%q is not in order", name)
	}
	return name
}

// count bounds a count by what the rest of the body can hold, so that a hostile number allocates nothing.
func (c *cursor) count(least int) int {
	count := int(c.u32())
	if count > len(c.rest)/least {
		c.fail("it counts %d and has bytes for less", count)
		return 0
	}
	return count
}

func (c *cursor) regions() []Region {
	count := c.count(5)
	regions := make([]Region, 0, count)
	previous := ""
	for number := 0; number < count && c.err == nil; number++ {
		region := Region{Path: c.path(previous, number == 0), Class: Class(c.u8())}
		if c.u8() != 0 || region.Class > ClassEncrypted {
			c.fail("region %q has a class that this runtime does not know", region.Path)
		}
		previous = region.Path
		regions = append(regions, region)
	}
	return regions
}

func (c *cursor) entries() []*Entry {
	count := c.count(33)
	store := make([]Entry, count)
	entries := make([]*Entry, 0, count)
	previous := ""
	for number := 0; number < count && c.err == nil; number++ {
		entry := &store[number]
		c.entry(entry, previous, number == 0)
		previous = entry.Path
		entries = append(entries, entry)
	}
	return entries
}

func (c *cursor) entry(entry *Entry, previous string, first bool) {
	entry.Path = c.path(previous, first)
	entry.Kind, entry.Class, entry.Flags = Kind(c.u8()), Class(c.u8()), c.u16()
	entry.Mode, entry.UID, entry.GID = c.u32(), c.u32(), c.u32()
	entry.Seconds, entry.Nanoseconds = int64(c.u64()), c.u32()
	if entry.Kind > KindFIFO || entry.Class > ClassEncrypted || entry.Flags&^flagsKnown != 0 ||
		entry.Mode&^0o7777 != 0 || entry.Nanoseconds > 999_999_999 {
		c.fail("entry %q has a field that is out of range", entry.Path)
	}
	switch entry.Kind {
	case KindFile:
		entry.Size = c.u64()
		copy(entry.Content[:], c.take(32))
		if entry.Size > 1<<60 {
			c.fail("entry %q is too large", entry.Path)
		}
	case KindSymlink:
		entry.Target = string(c.take(int(c.u16())))
		if c.err == nil && (entry.Target == "" || len(entry.Target) >= maxPath || strings.IndexByte(entry.Target, 0) >= 0) {
			c.fail("entry %q has an impossible target", entry.Path)
		}
	case KindCharacter, KindBlock:
		entry.Major, entry.Minor = c.u32(), c.u32()
	}
	c.xattrs(entry)
}

func (c *cursor) xattrs(entry *Entry) {
	previous := ""
	for count := int(c.u16()); count > 0 && c.err == nil; count-- {
		name := string(c.take(int(c.u16())))
		length := c.u32()
		if uint64(length) > uint64(len(c.rest)) {
			c.fail("it ends in the middle of an attribute")
			return
		}
		if name == "" || name <= previous || strings.IndexByte(name, 0) >= 0 {
			c.fail("entry %q has attributes that are not in order", entry.Path)
		}
		previous = name
		entry.Xattrs = append(entry.Xattrs, Xattr{Name: name, Value: string(c.take(int(length)))})
	}
}

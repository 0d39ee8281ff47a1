package fspf

import (
	"path"
	"strings"
)

// Kind tells what lies at a path.
type Kind uint8

// The kinds, as stored.
const (
	KindFile Kind = iota
	KindDirectory
	KindSymlink
	KindCharacter
	KindBlock
	KindFIFO
)

// Class tells how a file or a region is protected.
type Class uint8

// The classes, as stored. For a region, ClassNone means not-protected.
const (
	ClassNone Class = iota
	ClassAuthenticated
	ClassEncrypted
)

// Flags of an entry.
const (
	FlagStoredX uint16 = 1 << iota
	FlagClosure
	FlagMain
	FlagPinned
	flagsKnown = FlagStoredX | FlagClosure | FlagMain | FlagPinned
)

// Xattr is one extended attribute.
type Xattr struct {
	Name, Value string
}

// Entry is what the manifest knows of a path.
type Entry struct {
	Path         string
	Kind         Kind
	Class        Class
	Flags        uint16
	Mode         uint32
	UID, GID     uint32
	Seconds      int64
	Nanoseconds  uint32
	Size         uint64
	Content      Digest
	Target       string
	Major, Minor uint32
	Xattrs       []Xattr
	// Embedded is where the content lies in the binary, nil for what lies on the disk.
	Embedded *Extent
	// Number is the entry's place in the manifest: a stable inode number.
	Number uint64
}

// Extent is the place of an embedded file's content, and the SHA-256 of each of its chunks of 64 KiB, joined.
type Extent struct {
	Offset, Size uint64
	Digests      []byte
}

// Region is a subtree with a class.
type Region struct {
	Path  string
	Class Class
}

// Manifest is the decoded manifest with what the walk asks of it, all by exact path.
type Manifest struct {
	Regions  []Region
	Entries  []*Entry
	byPath   map[string]*Entry
	regions  map[string]Class
	implied  map[string]bool
	children map[string][]string
	borders  map[string][]string
}

// Entry returns the entry of a clean absolute path, or nil.
func (m *Manifest) Entry(name string) *Entry { return m.byPath[name] }

// Class returns the class of the region that a clean absolute path lies in.
func (m *Manifest) Class(name string) Class {
	for {
		if class, found := m.regions[name]; found {
			return class
		}
		if name == "/" {
			return ClassNone
		}
		name = path.Dir(name)
	}
}

// Implied says whether a path is an ancestor of an entry or a region: it is a directory whatever the disk says, and
// it can't be moved away.
func (m *Manifest) Implied(name string) bool { return m.implied[name] }

// Children returns the names that a directory of a region holds; required ones are entries, optional ones lead to
// regions that other parties (the engine, the kernel) may or may not have mounted.
func (m *Manifest) Children(name string) (required, optional []string) {
	return m.children[name], m.borders[name]
}

func index(regions []Region, entries []*Entry) *Manifest {
	m := &Manifest{
		Regions: regions, Entries: entries,
		byPath: make(map[string]*Entry, len(entries)), regions: make(map[string]Class, len(regions)),
		implied: make(map[string]bool), children: make(map[string][]string), borders: make(map[string][]string),
	}
	for number, entry := range entries {
		entry.Number = uint64(number) + 1
		m.byPath[entry.Path] = entry
		if entry.Path != "/" {
			parent, name := path.Split(entry.Path)
			m.children[clean(parent)] = append(m.children[clean(parent)], name)
		}
		m.imply(entry.Path)
	}
	for _, region := range regions {
		m.regions[region.Path] = region.Class
		if region.Class != ClassNone {
			m.imply(region.Path)
		}
		if region.Path != "/" {
			for at := region.Path; at != "/"; at = path.Dir(at) {
				parent, name := path.Split(at)
				m.borders[clean(parent)] = append(m.borders[clean(parent)], name)
			}
		}
	}
	return m
}

func (m *Manifest) imply(name string) {
	for name != "/" {
		name = path.Dir(name)
		if m.implied[name] {
			return
		}
		m.implied[name] = true
	}
}

func clean(parent string) string {
	if parent == "/" {
		return parent
	}
	return strings.TrimSuffix(parent, "/")
}

// WithMain returns a manifest that protects nothing but the original program.
func WithMain(entry *Entry) *Manifest {
	return index([]Region{{Path: "/"}}, []*Entry{entry})
}

// Package elfsec reads what the runtime needs of an ELF file: sections by name, loadable segments, the interpreter.
//
// The standard library's debug/elf decodes; this package bounds every size against the file, because the input is
// whatever the image's owner or its attacker put there.
package elfsec

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
)

const maxInterpreter = 4096

// File is an open ELF file.
type File struct {
	*elf.File
	reader io.ReaderAt
	size   int64
}

// Open decodes the headers of an ELF file of the given size.
func Open(reader io.ReaderAt, size int64) (file *File, err error) {
	// debug/elf is hardened against hostile headers, not proven: a panic on one is a refusal, not a crash.
	defer func() {
		if problem := recover(); problem != nil {
			file, err = nil, fmt.Errorf("not a readable ELF file: %v", problem)
		}
	}()
	decoded, err := elf.NewFile(withoutSections{io.NewSectionReader(reader, 0, size)})
	if err != nil {
		return nil, fmt.Errorf("not a readable ELF file: %w", err)
	}
	if decoded.Class != elf.ELFCLASS64 || decoded.Data != elf.ELFDATA2LSB {
		return nil, errors.New("not a 64-bit little-endian ELF file")
	}
	return &File{File: decoded, reader: reader, size: size}, nil
}

// withoutSections hides the section headers: a program runs by its segments, and may have any rubbish for sections.
type withoutSections struct{ io.ReaderAt }

func (w withoutSections) ReadAt(into []byte, offset int64) (int, error) {
	count, err := w.ReaderAt.ReadAt(into, offset)
	for _, field := range [...][2]int64{{0x28, 0x30}, {0x3C, 0x40}} {
		first, last := max(field[0]-offset, 0), min(field[1]-offset, int64(count))
		if first < last {
			clear(into[first:last])
		}
	}
	return count, err
}

// Section returns the bytes of the one section with this name as a reader, or nil if there is none.
func (f *File) Section(name string) (*io.SectionReader, error) {
	decoded, err := elf.NewFile(io.NewSectionReader(f.reader, 0, f.size))
	if err != nil {
		return nil, fmt.Errorf("the sections can't be read: %w", err)
	}
	var found *elf.Section
	for _, section := range decoded.Sections {
		if section.Name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two sections named %s", name)
		}
		found = section
	}
	if found == nil {
		return nil, nil
	}
	offset, size := int64(found.Offset), int64(found.FileSize)
	if found.Type != elf.SHT_PROGBITS || offset < 0 || size < 0 || offset > f.size || size > f.size-offset {
		return nil, fmt.Errorf("section %s does not lie in the file", name)
	}
	return io.NewSectionReader(f.reader, offset, size), nil
}

// Segment is one loadable segment.
type Segment struct {
	Offset, FileSize  uint64
	Address, Memory   uint64
	Read, Write, Exec bool
}

// Segments returns the loadable segments in the order of the program headers.
func (f *File) Segments() ([]Segment, error) {
	var segments []Segment
	for index, program := range f.Progs {
		if program.Type != elf.PT_LOAD || program.Memsz == 0 {
			continue
		}
		if program.Off > uint64(f.size) || program.Filesz > uint64(f.size)-program.Off || program.Filesz > program.Memsz ||
			program.Vaddr+program.Memsz < program.Vaddr {
			return nil, fmt.Errorf("segment %d does not lie in the file", index)
		}
		segments = append(segments, Segment{
			Offset: program.Off, FileSize: program.Filesz, Address: program.Vaddr, Memory: program.Memsz,
			Read: program.Flags&elf.PF_R != 0, Write: program.Flags&elf.PF_W != 0, Exec: program.Flags&elf.PF_X != 0,
		})
	}
	if len(segments) == 0 {
		return nil, errors.New("no loadable segment")
	}
	return segments, nil
}

// ReadSegment returns the bytes of a segment in the file. Those that only say where something lies in the file are zero, so
// that what is measured survives appended sections and strip (docs/formats.md section 6).
func (f *File) ReadSegment(segment Segment) ([]byte, error) {
	content := make([]byte, segment.FileSize)
	return content, f.ReadPart(segment, 0, content)
}

// ReadPart fills a buffer with the bytes of a segment from an offset in it, as ReadSegment returns them.
func (f *File) ReadPart(segment Segment, offset uint64, into []byte) error {
	start := segment.Offset + offset
	if _, err := f.reader.ReadAt(into, int64(start)); err != nil {
		return err
	}
	places, err := f.filePlaces()
	if err != nil {
		return err
	}
	for _, place := range places {
		first, last := max(place.start, start), min(place.end, start+uint64(len(into)))
		if first < last {
			clear(into[first-start : last-start])
		}
	}
	return nil
}

type place struct{ start, end uint64 }

// CheckTable refuses a file whose section header table lies in a segment: the table is not measured, so it could hide a
// change of what is loaded (docs/formats.md section 5). Files that the build made never have it there.
func (f *File) CheckTable() error {
	places, err := f.filePlaces()
	if err != nil {
		return err
	}
	segments, err := f.Segments()
	if err != nil {
		return err
	}
	table := places[tablePlace]
	for _, segment := range segments {
		if table.start < segment.Offset+segment.FileSize && segment.Offset < table.end {
			return errors.New("the section header table lies in a segment")
		}
	}
	return nil
}

// tablePlace is the section header table among the places of a file.
const tablePlace = 2

// filePlaces returns the ranges of the file that are not measured.
func (f *File) filePlaces() ([]place, error) {
	header := make([]byte, 64)
	if _, err := f.reader.ReadAt(header, 0); err != nil {
		return nil, err
	}
	shoff, phoff := f.ByteOrder.Uint64(header[0x28:]), f.ByteOrder.Uint64(header[0x20:])
	tableSize := uint64(f.ByteOrder.Uint16(header[0x3A:])) * uint64(f.ByteOrder.Uint16(header[0x3C:]))
	if shoff > math.MaxInt64 || phoff > math.MaxInt64 {
		return nil, errors.New("a table of the ELF file does not lie in it")
	}
	places := []place{{0x28, 0x30}, {0x3C, 0x40}, {shoff, shoff + tableSize}}
	entrySize := uint64(f.ByteOrder.Uint16(header[0x36:]))
	for index, program := range f.Progs {
		if program.Type == elf.PT_LOAD {
			at := phoff + uint64(index)*entrySize
			places = append(places, place{at + 8, at + 16}, place{at + 32, at + 40})
		}
	}
	return places, nil
}

// Interpreter returns the path of PT_INTERP, or "" for a program without one.
func (f *File) Interpreter() (string, error) {
	for _, program := range f.Progs {
		if program.Type != elf.PT_INTERP {
			continue
		}
		if program.Filesz < 2 || program.Filesz > maxInterpreter {
			return "", errors.New("PT_INTERP has no sensible length")
		}
		text := make([]byte, program.Filesz)
		if _, err := f.reader.ReadAt(text, int64(program.Off)); err != nil {
			return "", fmt.Errorf("PT_INTERP: %w", err)
		}
		path, _, terminated := bytes.Cut(text, []byte{0})
		if !terminated || len(path) == 0 || path[0] != '/' {
			return "", errors.New("PT_INTERP is not an absolute path")
		}
		return string(path), nil
	}
	return "", nil
}

// InterpreterHeader returns the file offset of the PT_INTERP program header, or -1.
func (f *File) InterpreterHeader() int64 {
	header := make([]byte, 64)
	if _, err := f.reader.ReadAt(header, 0); err != nil {
		return -1
	}
	phoff := int64(f.ByteOrder.Uint64(header[32:]))
	phentsize := int64(f.ByteOrder.Uint16(header[54:]))
	for index, program := range f.Progs {
		if program.Type == elf.PT_INTERP {
			return phoff + int64(index)*phentsize
		}
	}
	return -1
}

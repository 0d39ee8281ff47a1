// Package measure recomputes MRENCLAVE from the running file (docs/formats.md section 6) and checks SIGSTRUCT (section 7).
package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"sconify.local/runtime/internal/elfsec"
)

const (
	page        = 4096
	block       = 256
	stackPages  = 16
	ssaPages    = 2
	threadPages = 1 + stackPages + 1 + 1 + ssaPages
	stackFixed  = stackPages * page
	minimumSize = 1 << 21
	maxRuntime  = 1 << 30
	readSize    = 64 * page

	permissionRead  = 1
	permissionWrite = 2
	permissionExec  = 4
	typeTCS         = 1 << 8
	typeREG         = 2 << 8
)

// Layout is what the measured configuration says about memory.
type Layout struct {
	Config      []byte
	Threads     int
	Heap, Stack uint64
}

// Enclave returns MRENCLAVE of the enclave made of an ELF file's segments and the layout.
func Enclave(file *elfsec.File, layout Layout) ([32]byte, error) {
	var result [32]byte
	segments, err := file.Segments()
	if err != nil {
		return result, err
	}
	base, end, err := span(segments, file.Entry)
	if err != nil {
		return result, err
	}
	configAt := end - base
	threadsAt := configAt + roundUp(uint64(len(layout.Config)))
	dynamicAt := threadsAt + uint64(layout.Threads)*threadPages*page
	dynamic := layout.Heap
	if layout.Stack > stackFixed {
		dynamic += uint64(layout.Threads) * (layout.Stack - stackFixed)
	}
	size := uint64(minimumSize)
	for size < dynamicAt+dynamic {
		size <<= 1
		if size == 0 {
			return result, errors.New("heap and stack do not fit an enclave")
		}
	}
	stream := newStream(size)
	for _, segment := range segments {
		if err := stream.segment(file, segment, base); err != nil {
			return result, err
		}
	}
	stream.pages(configAt, layout.Config, typeREG|permissionRead)
	for thread := range uint64(layout.Threads) {
		stream.thread(threadsAt+thread*threadPages*page, file.Entry-base)
	}
	stream.hash.Sum(result[:0])
	return result, nil
}

// span returns where the segments begin and end, in whole pages.
func span(segments []elfsec.Segment, entry uint64) (base, end uint64, err error) {
	base, inside := segments[0].Address&^(page-1), false
	for _, segment := range segments {
		first, last := segment.Address&^(page-1), roundUp(segment.Address+segment.Memory)
		if first < end {
			return 0, 0, errors.New("two segments share a page, or are not in ascending order")
		}
		if last < first || last-base > maxRuntime {
			return 0, 0, errors.New("the segments span more than a runtime can")
		}
		inside = inside || (first <= entry && entry < last)
		end = last
	}
	if !inside {
		return 0, 0, errors.New("the entry point lies outside of the segments")
	}
	return base, end, nil
}

func roundUp(value uint64) uint64 { return (value + page - 1) &^ (page - 1) }

// stream feeds SHA-256 with the 64-byte records of the SDM (vol. 3D: ECREATE, EADD, EEXTEND).
type stream struct {
	hash    hash.Hash
	scratch []byte
	zero    [page]byte
}

func newStream(size uint64) *stream {
	s := &stream{hash: sha256.New(), scratch: make([]byte, 0, 64+page/block*(64+block))}
	record := make([]byte, 64)
	copy(record, "ECREATE\x00")
	binary.LittleEndian.PutUint32(record[8:], 1) // SSAFRAMESIZE
	binary.LittleEndian.PutUint64(record[12:], size)
	s.hash.Write(record)
	return s
}

// add measures one page: EADD, then EEXTEND of each of its 16 blocks.
func (s *stream) add(offset uint64, content []byte, flags uint64) {
	var record [64]byte
	out := s.scratch[:0]
	copy(record[:], "EADD\x00\x00\x00\x00")
	binary.LittleEndian.PutUint64(record[8:], offset)
	binary.LittleEndian.PutUint64(record[16:], flags)
	out = append(out, record[:]...)
	clear(record[:])
	copy(record[:], "EEXTEND\x00")
	for at := uint64(0); at < page; at += block {
		binary.LittleEndian.PutUint64(record[8:], offset+at)
		out = append(out, record[:]...)
		out = append(out, content[at:at+block]...)
	}
	s.hash.Write(out)
}

// pages measures content that starts at a page, the last page filled with zeros.
func (s *stream) pages(offset uint64, content []byte, flags uint64) {
	for len(content) >= page {
		s.add(offset, content[:page], flags)
		offset, content = offset+page, content[page:]
	}
	if len(content) > 0 {
		last := make([]byte, page)
		copy(last, content)
		s.add(offset, last, flags)
	}
}

// segment measures the pages of a segment up to the last that is not zero: those that follow are added with EAUG, which
// gives zeros, so what is in them can't be anything else. It reads in parts: a copy of the whole would cost as much again.
func (s *stream) segment(file *elfsec.File, segment elfsec.Segment, base uint64) error {
	flags := uint64(typeREG)
	if segment.Read {
		flags |= permissionRead
	}
	if segment.Write {
		flags |= permissionWrite
	}
	if segment.Exec {
		flags |= permissionExec
	}
	next, lead := segment.Address&^(page-1), segment.Address&(page-1)
	next -= base
	buffer, zeros := make([]byte, readSize), uint64(0)
	for done := uint64(0); done < segment.FileSize; {
		count := min(readSize-lead, segment.FileSize-done)
		clear(buffer[:lead])
		if err := file.ReadPart(segment, done, buffer[lead:lead+count]); err != nil {
			return err
		}
		clear(buffer[lead+count:])
		for at := uint64(0); at < lead+count; at += page {
			if content := buffer[at : at+page]; bytes.Equal(content, s.zero[:]) {
				zeros++
			} else {
				for ; zeros > 0; zeros-- {
					s.add(next-zeros*page, s.zero[:], flags)
				}
				s.add(next, content, flags)
			}
			next += page
		}
		done, lead = done+count, 0
	}
	return nil
}

// thread measures one thread's stack, TCS and SSA; the two guard pages are holes.
func (s *stream) thread(offset, entry uint64) {
	stack := offset + page
	for index := range uint64(stackPages) {
		s.add(stack+index*page, s.zero[:], typeREG|permissionRead|permissionWrite)
	}
	tcsAt := stack + (stackPages+1)*page
	ssaAt := tcsAt + page
	tcs := make([]byte, page)
	binary.LittleEndian.PutUint64(tcs[16:], ssaAt)
	binary.LittleEndian.PutUint32(tcs[28:], ssaPages)
	binary.LittleEndian.PutUint64(tcs[32:], entry)
	binary.LittleEndian.PutUint64(tcs[48:], stack)
	binary.LittleEndian.PutUint64(tcs[56:], stack)
	binary.LittleEndian.PutUint32(tcs[64:], 0xFFF)
	binary.LittleEndian.PutUint32(tcs[68:], 0xFFF)
	s.add(tcsAt, tcs, typeTCS)
	for index := range uint64(ssaPages) {
		s.add(ssaAt+index*page, s.zero[:], typeREG|permissionRead|permissionWrite)
	}
}

// Program returns a digest of what of an ELF file runs: its segments, without the header fields that appended sections
// change. The stub (a runtime without sections) and a sconified binary have the same one.
func Program(file *elfsec.File) ([32]byte, error) {
	var result [32]byte
	segments, err := file.Segments()
	if err != nil {
		return result, err
	}
	digest := sha256.New()
	var header [24]byte
	for _, segment := range segments {
		content, err := file.ReadSegment(segment)
		if err != nil {
			return result, err
		}
		content = bytes.TrimRight(content, "\x00") // strip drops trailing zeros, memory has them anyway
		binary.LittleEndian.PutUint64(header[0:], segment.Address)
		binary.LittleEndian.PutUint64(header[8:], segment.Memory)
		binary.LittleEndian.PutUint64(header[16:], uint64(len(content)))
		digest.Write(header[:])
		digest.Write(content)
	}
	digest.Sum(result[:0])
	return result, nil
}

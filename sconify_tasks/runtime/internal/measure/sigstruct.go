package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
)

// SigstructSize is the size of a SIGSTRUCT (SDM vol. 3D, table 34-19).
const SigstructSize = 1808

const (
	keySize     = 384
	modulusAt   = 128
	exponentAt  = 512
	signatureAt = 516
	bodyAt      = 900
	bodyEnd     = 1028
	hashAt      = 960
)

var (
	header1 = []byte{6, 0, 0, 0, 0xE1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}
	header2 = []byte{1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0}
	// sha256Info is the DER prefix of a SHA-256 DigestInfo (RFC 8017 section 9.2, note 1).
	sha256Info = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
)

// Sigstruct is a checked SIGSTRUCT.
type Sigstruct struct {
	Raw         []byte
	EnclaveHash [32]byte
}

// ParseSigstruct checks the constants and the RSA-3072 signature. crypto/rsa refuses e = 3 in strict modes and computes
// nothing secret here, so the check is written out: signature^3 mod modulus against the whole padded block.
func ParseSigstruct(raw []byte) (*Sigstruct, error) {
	if len(raw) != SigstructSize {
		return nil, errors.New("SIGSTRUCT is not 1808 bytes long")
	}
	if !bytes.Equal(raw[:16], header1) || !bytes.Equal(raw[24:40], header2) {
		return nil, errors.New("SIGSTRUCT has another header")
	}
	if binary.LittleEndian.Uint32(raw[exponentAt:]) != 3 {
		return nil, errors.New("SIGSTRUCT's exponent is not 3")
	}
	modulus, signature := number(raw[modulusAt:modulusAt+keySize]), number(raw[signatureAt:signatureAt+keySize])
	if modulus.BitLen() != keySize*8 || signature.Cmp(modulus) >= 0 {
		return nil, errors.New("SIGSTRUCT's key or signature is out of range")
	}
	signed := sha256.New()
	signed.Write(raw[:modulusAt])
	signed.Write(raw[bodyAt:bodyEnd])
	expected := append([]byte{0, 1}, bytes.Repeat([]byte{0xFF}, keySize-3-len(sha256Info)-sha256.Size)...)
	expected = append(append(expected, 0), sha256Info...)
	expected = signed.Sum(expected)
	opened := new(big.Int).Exp(signature, big.NewInt(3), modulus).FillBytes(make([]byte, keySize))
	if !bytes.Equal(opened, expected) {
		return nil, errors.New("SIGSTRUCT's signature does not verify")
	}
	result := &Sigstruct{Raw: raw}
	copy(result.EnclaveHash[:], raw[hashAt:])
	return result, nil
}

func number(littleEndian []byte) *big.Int {
	reversed := slices.Clone(littleEndian)
	slices.Reverse(reversed)
	return new(big.Int).SetBytes(reversed)
}

package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"
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
	q1At        = 1040
	q2At        = 1424

	debugBit  = 0x2
	mode64Bit = 0x4
	// keyBits are PROVISIONKEY and EINITTOKEN_KEY.
	keyBits  = 0x30
	xfrm     = 0x3
	xfrmMask = 0xFFFFFFFFFFFFFF1B
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
	if err := checkFields(raw); err != nil {
		return nil, err
	}
	modulus, signature := number(raw[modulusAt:modulusAt+keySize]), number(raw[signatureAt:signatureAt+keySize])
	if modulus.BitLen() != keySize*8 || modulus.Bit(0) == 0 || signature.Cmp(modulus) >= 0 {
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
	// A processor takes Q1 = floor(S^2 / M) and Q2 = floor((S^3 - Q1*S*M) / M) as given, and refuses wrong ones.
	first, remainder := new(big.Int).DivMod(new(big.Int).Mul(signature, signature), modulus, new(big.Int))
	second := new(big.Int).Div(new(big.Int).Mul(signature, remainder), modulus)
	if number(raw[q1At:q2At]).Cmp(first) != 0 || number(raw[q2At:]).Cmp(second) != 0 {
		return nil, errors.New("SIGSTRUCT's Q1 or Q2 is wrong")
	}
	result := &Sigstruct{Raw: raw}
	copy(result.EnclaveHash[:], raw[hashAt:])
	return result, nil
}

// checkFields holds the fields that do not vary.
func checkFields(raw []byte) error {
	little := binary.LittleEndian
	for _, reserved := range [][2]int{{16, 20}, {40, 128}, {908, 928}, {992, 1024}, {1028, 1040}} {
		if !bytes.Equal(raw[reserved[0]:reserved[1]], make([]byte, reserved[1]-reserved[0])) {
			return errors.New("a reserved field of SIGSTRUCT is not zero")
		}
	}
	if little.Uint32(raw[exponentAt:]) != 3 {
		return errors.New("SIGSTRUCT's exponent is not 3")
	}
	if _, err := time.Parse("20060102", fmt.Sprintf("%08x", little.Uint32(raw[20:]))); err != nil {
		return errors.New("SIGSTRUCT's date is none")
	}
	flags, features := little.Uint64(raw[928:]), little.Uint64(raw[936:])
	if flags&^(debugBit|keyBits) != mode64Bit || !demandable(features) || little.Uint64(raw[944:]) != math.MaxUint64^flags&debugBit ||
		little.Uint64(raw[952:]) != xfrmMask|features || little.Uint32(raw[900:]) != 0 || little.Uint32(raw[904:]) != math.MaxUint32 {
		return errors.New("SIGSTRUCT allows other enclave attributes than the format does")
	}
	return nil
}

// demandable says whether a signer may demand this XFRM: x87 and SSE always, and AVX, AVX-512 with AVX, PKRU and AMX, whole.
func demandable(features uint64) bool {
	known := uint64(xfrm)
	for _, feature := range []uint64{0x4, 0xE4, 0x200, 0x60000} {
		if features&feature == feature {
			known |= feature
		}
	}
	return features == known
}

func number(littleEndian []byte) *big.Int {
	reversed := slices.Clone(littleEndian)
	slices.Reverse(reversed)
	return new(big.Int).SetBytes(reversed)
}

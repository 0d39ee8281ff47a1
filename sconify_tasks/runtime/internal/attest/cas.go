package attest

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"sconify.local/runtime/internal/fspf"
)

const (
	casPort       = "18765"
	lasPort       = "18766"
	dialTimeout   = 3 * time.Second
	answerTimeout = 60 * time.Second
	exporterLabel = "EXPORTER-sconify-attest-1"
	reportDomain  = "sconify/attest/1"
	protocolName  = "sconify-cas/1"
	casServerName = "cas"
)

// Enclave is who asks.
type Enclave struct {
	Measurement [32]byte
	Sigstruct   []byte
	// CASIdentity is the SHA-256 of the CAS's SubjectPublicKeyInfo, from the measured configuration.
	CASIdentity []byte
	ConfigID    string
}

// Service is what the session configures.
type Service struct {
	SessionName, SessionHash string
	Command                  []string
	Environment              map[string]string
	WorkingDirectory         string
	// ManifestPath is empty when nothing is protected.
	ManifestPath string
	Key          fspf.Key
	Tag          fspf.Tag
}

// Configure attests and returns the service's configuration. casGiven and lasGiven are the addresses of the environment.
func Configure(enclave Enclave, casGiven, lasGiven string) (*Service, error) {
	channel, err := dialCAS(Addresses(casGiven, casPort), enclave.CASIdentity)
	if err != nil {
		return nil, err
	}
	defer channel.Close()
	state := channel.ConnectionState()
	exported, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("TLS exporter: %w", err)
	}
	binding := sha256.Sum256(append([]byte(reportDomain), exported...))
	quote, lasProblem := requestQuote(Addresses(lasGiven, lasPort), enclave, binding)
	var quoted *string
	if lasProblem == nil {
		quoted = &quote
	}
	_ = channel.SetDeadline(time.Now().Add(answerTimeout))
	var raw reply
	err = exchange(channel, "the CAS at "+channel.RemoteAddr().String(), map[string]any{
		"v": 1, "type": "config", "config_id": enclave.ConfigID, "quote": quoted,
	}, &raw)
	if err != nil {
		if lasProblem != nil {
			return nil, fmt.Errorf("%w (no quote was sent: %w)", err, lasProblem)
		}
		return nil, err
	}
	return raw.check()
}

// dialCAS tries each address until one proves to have the pinned key. A wrong key is told apart from no answer.
func dialCAS(addresses []string, identity []byte) (*tls.Conn, error) {
	var problems []string
	for _, address := range addresses {
		raw, err := net.DialTimeout("tcp", address, dialTimeout)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		_ = raw.SetDeadline(time.Now().Add(answerTimeout))
		channel := tls.Client(raw, &tls.Config{
			MinVersion: tls.VersionTLS13, ServerName: casServerName, NextProtos: []string{protocolName},
			// The identity is the pinned key; names, dates and issuers of the certificate mean nothing here. Unlike
			// VerifyPeerCertificate, VerifyConnection is called on every handshake.
			InsecureSkipVerify: true, //nolint:gosec
			VerifyConnection:   func(state tls.ConnectionState) error { return checkPin(state, identity) },
		})
		if err := channel.Handshake(); err != nil {
			_ = raw.Close()
			problems = append(problems, address+": "+err.Error())
			continue
		}
		return channel, nil
	}
	return nil, fmt.Errorf("no CAS with the pinned identity key answers: %s", strings.Join(problems, "; "))
}

func checkPin(state tls.ConnectionState, identity []byte) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	digest := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if !bytes.Equal(digest[:], identity) {
		return fmt.Errorf("its identity key is %x, the image was built for %x (rebuild with this CAS's --cas and --cas-key)",
			digest[:8], identity[:8])
	}
	if state.NegotiatedProtocol != protocolName {
		return fmt.Errorf("it does not speak %s: is this the enclaves' port?", protocolName)
	}
	return nil
}

// requestQuote asks the first LAS that answers.
func requestQuote(addresses []string, enclave Enclave, binding [32]byte) (string, error) {
	var problems []string
	for _, address := range addresses {
		channel, err := net.DialTimeout("tcp", address, dialTimeout)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		_ = channel.SetDeadline(time.Now().Add(answerTimeout))
		var answer struct {
			Quote string `json:"quote"`
		}
		err = exchange(channel, "the LAS at "+address, map[string]any{
			"v": 1, "type": "quote", "mrenclave": hex.EncodeToString(enclave.Measurement[:]),
			"sigstruct":   hex.EncodeToString(enclave.Sigstruct),
			"report_data": hex.EncodeToString(append(binding[:], make([]byte, 32)...)),
		}, &answer)
		_ = channel.Close()
		if err == nil && answer.Quote == "" {
			err = errors.New("the LAS at " + address + " sent no quote")
		}
		if err == nil {
			_, err = base64.StdEncoding.DecodeString(answer.Quote)
		}
		if err == nil {
			return answer.Quote, nil
		}
		problems = append(problems, err.Error())
	}
	return "", errors.New("no LAS gave a quote: " + strings.Join(problems, "; "))
}

type reply struct {
	Session *struct {
		Name string `json:"name"`
		Hash string `json:"hash"`
	} `json:"session"`
	Service json.RawMessage `json:"service"`
}

type service struct {
	Command     []string          `json:"command"`
	Environment map[string]string `json:"environment"`
	PWD         string            `json:"pwd"`
	FSPFPath    *string           `json:"fspf_path"`
	FSPFKey     *string           `json:"fspf_key"`
	FSPFTag     *string           `json:"fspf_tag"`
}

func (r *reply) check() (*Service, error) {
	if r.Session == nil || r.Service == nil {
		return nil, errors.New("the CAS's answer lacks session or service")
	}
	decoder := json.NewDecoder(bytes.NewReader(r.Service))
	// A key that this runtime does not know could be a protection that it does not give.
	decoder.DisallowUnknownFields()
	var raw service
	if err := decoder.Decode(&raw); err != nil {
		return nil, fmt.Errorf("the CAS configures something that this runtime does not know (%w): rebuild the image with the CAS's version", err)
	}
	result := &Service{
		SessionName: r.Session.Name, SessionHash: r.Session.Hash,
		Command: raw.Command, Environment: raw.Environment, WorkingDirectory: raw.PWD,
	}
	if err := raw.checkText(); err != nil {
		return nil, err
	}
	if result.WorkingDirectory == "" {
		result.WorkingDirectory = "/"
	}
	if raw.FSPFPath == nil && raw.FSPFKey == nil && raw.FSPFTag == nil {
		return result, nil
	}
	if raw.FSPFPath == nil || raw.FSPFKey == nil || raw.FSPFTag == nil {
		return nil, errors.New("the session has some of fspf_path, fspf_key and fspf_tag, and not all")
	}
	key, err1 := hex.DecodeString(*raw.FSPFKey)
	tag, err2 := hex.DecodeString(*raw.FSPFTag)
	if err1 != nil || err2 != nil || len(key) != len(result.Key) || len(tag) != len(result.Tag) || !strings.HasPrefix(*raw.FSPFPath, "/") {
		return nil, errors.New("the session's fspf_path, fspf_key or fspf_tag has not the right form")
	}
	result.ManifestPath = *raw.FSPFPath
	copy(result.Key[:], key)
	copy(result.Tag[:], tag)
	return result, nil
}

func (s *service) checkText() error {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return errors.New("the session's command is empty")
	}
	for _, word := range s.Command {
		if strings.IndexByte(word, 0) >= 0 {
			return errors.New("the session's command holds a NUL")
		}
	}
	for name, value := range s.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("the session's environment variable %q can't be set", name)
		}
	}
	return nil
}

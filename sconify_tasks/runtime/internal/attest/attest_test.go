package attest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAServiceIsLookedForAtTheGivenAddressThenLoopbackThenTheGateway(t *testing.T) {
	addresses := Addresses("cas.example", "18765")
	if !slices.Equal(addresses[:2], []string{"cas.example:18765", "127.0.0.1:18765"}) {
		t.Error(addresses)
	}
	if addresses := Addresses("[::1]:7", "1"); addresses[0] != "[::1]:7" {
		t.Error(addresses)
	}
	if addresses := Addresses("127.0.0.1", "1"); addresses[0] != "127.0.0.1:1" || slices.Contains(addresses[1:], "127.0.0.1:1") {
		t.Error(addresses)
	}
}

func TestTheDefaultGatewayIsReadFromTheRoutingTable(t *testing.T) {
	table := filepath.Join(t.TempDir(), "route")
	content := "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n" +
		"eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n" + "eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n"
	if err := os.WriteFile(table, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if gateway := defaultGateway(table); gateway != "172.17.0.1" {
		t.Error(gateway)
	}
	if gateway := defaultGateway(table + "-none"); gateway != "" {
		t.Error(gateway)
	}
}

func TestServicesThatCanNotBeHonouredAreRefused(t *testing.T) {
	session := `{"session":{"name":"n","hash":"h"},"service":`
	key := strings.Repeat("ab", 32)
	for text, fine := range map[string]bool{
		`{"command":["a"],"environment":{},"pwd":"/"}`: true,
		`{"command":["a"],"environment":{},"pwd":"/","fspf_path":"/f","fspf_key":"` + key + `","fspf_tag":"` + key[:32] + `"}`: true,
		`{"command":["a"],"environment":{},"pwd":"/","fspf_path":"/f"}`:                                                        false,
		`{"command":["a"],"environment":{},"pwd":"/","fspf_path":"/f","fspf_key":"ab","fspf_tag":"ab"}`:                        false,
		`{"command":[],"environment":{},"pwd":"/"}`:                                                                            false,
		`{"command":["a\u0000"],"environment":{},"pwd":"/"}`:                                                                   false,
		`{"command":["a"],"environment":{"A=B":"c"},"pwd":"/"}`:                                                                false,
		`{"command":["a"],"environment":{},"pwd":"/","volumes":[]}`:                                                            false,
		`null`: false,
	} {
		var raw reply
		if err := json.Unmarshal([]byte(session+text+"}"), &raw); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.check(); (err == nil) != fine {
			t.Errorf("%s: %v", text, err)
		}
	}
}

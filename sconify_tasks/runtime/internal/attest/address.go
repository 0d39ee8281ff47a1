package attest

import (
	"bufio"
	"encoding/hex"
	"net"
	"os"
	"slices"
	"strings"
)

// Addresses returns where a service is looked for: the given host or host:port, loopback, the default gateway.
func Addresses(given, port string) []string {
	var hosts []string
	if given != "" {
		hosts = append(hosts, given)
	}
	hosts = append(hosts, "127.0.0.1")
	if gateway := defaultGateway("/proc/net/route"); gateway != "" {
		hosts = append(hosts, gateway)
	}
	var addresses []string
	for _, host := range hosts {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		if !slices.Contains(addresses, host) {
			addresses = append(addresses, host)
		}
	}
	return addresses
}

// defaultGateway reads the kernel's routing table: addresses are hex, least significant byte first.
func defaultGateway(table string) string {
	file, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		address, err := hex.DecodeString(fields[2])
		if err != nil || len(address) != 4 || fields[2] == "00000000" {
			continue
		}
		slices.Reverse(address)
		return net.IP(address).String()
	}
	return ""
}

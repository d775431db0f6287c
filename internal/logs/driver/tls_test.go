package driver

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"testing"
)

func writePEM(t *testing.T, path string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listenTLS(t *testing.T, c *tls.Config) net.Listener {
	t.Helper()
	c = c.Clone()
	c.NextProtos = nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

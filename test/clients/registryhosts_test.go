package clients_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
	"gantry/test/clients"
)

const dockerCLI = "/usr/local/bin/docker"

// writePEM writes a file of one PEM block.
func writePEM(t *testing.T, file, kind string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clientCertificate writes me.cert and me.key to dir, and returns who trusts them.
func clientCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "me"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "me.cert"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "me.key"), "PRIVATE KEY", secret)
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return pool
}

// tunnel is an HTTP proxy that leads to one host whatever it is asked for, if that is
// example.com.
func tunnel(t *testing.T, to string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			out.Close()
		}()
		_, _ = io.Copy(in, out)
		in.Close()
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestRegistryHosts pulls with Docker's command line by a hosts.toml that names two
// registries. One has the manifests and sends wrong layers; the other wants a
// certificate and a header, and shows a certificate that few trust.
func TestRegistryHosts(t *testing.T) {
	wrong, right := registry.New(t, registry.Options{}), registry.New(t, registry.Options{})
	layer := registry.NoiseLayer("f", 1, 100000)
	for _, r := range []*registry.Server{wrong, right} {
		r.Put("app", "1", registry.Image{Layers: [][]byte{layer}, Cmd: []string{"/f"}})
	}
	wrong.Set(registry.Faults{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), 100))
		return true
	}})
	right.Set(registry.Faults{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Team") == "storage" {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}})
	name := fmt.Sprintf("hosts-%d.test", os.Getpid()) // others run this test too
	dir, ref := hostDirectory(t, name), name+"/app:1"
	guarded := httptest.NewUnstartedServer(right)
	guarded.Config.ErrorLog = log.New(io.Discard, "", 0)
	guarded.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCertificate(t, dir), MinVersion: tls.VersionTLS12}
	guarded.StartTLS()
	t.Cleanup(guarded.Close)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", guarded.Certificate().Raw)
	d := testkit.StartDaemon(t, "--bridge", "none", "--https-proxy", tunnel(t, guarded.Listener.Addr().String()))
	docker := clients.CLI{Path: dockerCLI, Env: []string{"DOCKER_HOST=unix://" + d.Socket, "DOCKER_CONFIG=" + t.TempDir()}}

	const (
		host   = "[host.\"https://example.com\"]\n"
		ca     = "ca = \"ca.pem\"\n"
		client = "client = [[\"me.cert\", \"me.key\"]]\n"
		header = "[host.\"https://example.com\".header]\nx-team = \"storage\"\n"
	)
	first := "[host.\"" + wrong.URL + "\"]\n"
	for _, c := range []struct {
		what, table string
		good, asked bool // it is pulled; the wrong one is asked
	}{
		{"both", first + host + ca + client + header, true, true},
		{"the wrong one is for pushes", first + "capabilities = [\"push\"]\n" + host + ca + client + header, true, false},
		{"the wrong one comes later", host + ca + client + header + first, true, false},
		{"its certificate is not looked at", host + "skip_verify = true\n" + client + header, true, false},
		{"both capabilities", host + "capabilities = [\"pull\", \"resolve\"]\n" + ca + client + header, true, false},
		{"as the server", "server = \"https://example.com\"\n" + ca + client + "[header]\nx-team = \"storage\"\n", true, false},
		{"the path is said", "[host.\"https://example.com/v2\"]\noverride_path = true\n" + ca + client + "[host.\"https://example.com/v2\".header]\nx-team = [\"storage\"]\n", true, false},
		{"only the wrong one", first, false, true},
		{"nobody trusts its certificate", host + client + header, false, false},
		{"it is shown no certificate", host + ca + header, false, false},
		{"it gets no header", host + ca + client, false, false},
		{"it may not resolve", host + "capabilities = [\"pull\"]\n" + ca + client + header, false, false},
		{"no table that makes sense", "server = 7\n", false, false},
	} {
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(c.table), 0o600); err != nil {
			t.Fatal(err)
		}
		wrong.Forget()
		right.Forget()
		r, err := docker.Run(nil, "pull", ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Code == 0; got != c.good {
			t.Errorf("%s: %+v", c.what, r)
		}
		if got := len(wrong.Requests()) > 0; got != c.asked {
			t.Errorf("%s: the wrong one was asked %v", c.what, wrong.Requests())
		}
		if r.Code == 0 {
			if right.Sent() < 100000 {
				t.Errorf("%s: the right one has sent %d bytes", c.what, right.Sent())
			}
			d.OK(t, "rmi", ref)
		}
	}
}

// hostDirectory makes the directory where a daemon looks for what is said of a
// registry.
func hostDirectory(t *testing.T, host string) string {
	t.Helper()
	const all = "/etc/gantry/certs.d"
	dir := filepath.Join(all, host)
	err := os.MkdirAll(dir, 0o755)
	for range 100 { // another run of the test may remove the empty one meanwhile
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		_ = os.Remove(all) // unless it is somebody's
		_ = os.Remove(filepath.Dir(all))
	})
	return dir
}

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// served is a server that runs in the test's process.
type served struct {
	address string
	lines   chan string // of its log
	end     func() error
}

// serve runs the command with a configuration until the test ends.
func serve(t *testing.T, conf string) *served {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yml")
	put(t, file, conf)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	s := &served{lines: make(chan string, 1000)}
	done := make(chan error, 1)
	go func() {
		err := serveCommand(ctx, flag.NewFlagSet("serve", flag.ContinueOnError), []string{"--config", file, "--listen", "127.0.0.1:0"}, w)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	ready := make(chan string, 1)
	go func() {
		for sc := bufio.NewScanner(r); sc.Scan(); {
			var l struct{ Msg, Address string }
			if json.Unmarshal(sc.Bytes(), &l) == nil && l.Msg == "serving" {
				ready <- l.Address
			}
			s.lines <- sc.Text()
		}
	}()
	var err error
	ended := false
	s.end = func() error {
		cancel()
		if !ended {
			err, ended = <-done, true
		}
		return err
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case s.address = <-ready:
	case err := <-done:
		done <- err
		t.Fatal("the server did not begin: ", err)
	}
	return s
}

// logged waits for a line of the log.
func (s *served) logged(t *testing.T, text string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case l := <-s.lines:
			if strings.Contains(l, text) {
				return
			}
		case <-late:
			t.Fatalf("the log does not say %q", text)
		}
	}
}

// put replaces a file as a whole.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func certify(t *testing.T, name string, serial int64, by *authority) (certPEM, keyPEM string, a *authority) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IsCA: by == nil, BasicConstraintsValid: true}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}))
	return certPEM, keyPEM, &authority{cert, key, certPEM}
}

// The server's certificate, its clients' authorities and its users are read again
// when they change, and wrong ones are not taken.
func TestFilesAreReadAgain(t *testing.T) {
	// A signal that nobody waits for would end the test.
	hup := make(chan os.Signal, 10)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	_, _, ca := certify(t, "authority", 1, nil)
	_, _, ca1 := certify(t, "clients 1", 2, nil)
	_, _, ca2 := certify(t, "clients 2", 3, nil)
	renew := func(serial int64) {
		c, k, _ := certify(t, "server", serial, ca)
		put(t, at("key"), k)
		put(t, at("cert"), c)
	}
	renew(100)
	put(t, at("ca"), ca1.pem)
	user := func(name string) string {
		h, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return name + ":" + string(h) + "\n"
	}
	put(t, at("users"), user("ann"))
	s := serve(t, fmt.Sprintf("data: %s\ntls: {cert: %s, key: %s, client-ca: %s}\nhtpasswd: %s\n", at("data"), at("cert"), at("key"), at("ca"), at("users")))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	client := func(by *authority) *http.Transport {
		conf := &tls.Config{RootCAs: pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
		if by != nil {
			c, k, _ := certify(t, "client", 7, by)
			pair, err := tls.X509KeyPair([]byte(c), []byte(k))
			if err != nil {
				t.Fatal(err)
			}
			// Whatever the server says that it wants.
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}
	}
	// ask returns the status and the serial number of the certificate, or 0.
	ask := func(tr *http.Transport, name string) (int, int64) {
		req, err := http.NewRequest("GET", "https://"+s.address+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(name, "pw")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return 0, 0
		}
		resp.Body.Close()
		return resp.StatusCode, resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	want := func(what string, tr *http.Transport, name string, status int, serial int64) {
		t.Helper()
		if st, se := ask(tr, name); st != status || se != serial {
			t.Errorf("%s: status %d of certificate %d, want %d of %d", what, st, se, status, serial)
		}
	}
	nobody, one, two := client(nil), client(ca1), client(ca2)
	want("no certificate", nobody, "ann", 0, 0)
	want("a stranger's certificate", two, "ann", 0, 0)
	want("a client", one, "ann", 200, 100)
	want("an unknown user", one, "bob", 401, 100)
	renew(101)
	want("a new certificate", one, "ann", 200, 101)
	put(t, at("cert"), "half")
	want("a certificate that is none", one, "ann", 200, 101)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.logged(t, "files could not be read again")
	want("after a signal", one, "ann", 200, 101)
	renew(102)
	put(t, at("users"), user("bob"))
	put(t, at("ca"), ca2.pem)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.logged(t, "files have been read again")
	want("a client of the old authority", one, "bob", 0, 0)
	want("one of the new authority", two, "bob", 200, 102)
	want("a user that has been removed", two, "ann", 401, 102)
	put(t, at("users"), user("bob")+user("eve"))
	want("a user that is new", two, "eve", 200, 102)
}

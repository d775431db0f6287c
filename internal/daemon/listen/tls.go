package listen

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync/atomic"

	"gantry/internal/errs"
)

// TLSFiles are the paths of what mutual TLS needs.
type TLSFiles struct{ CA, Cert, Key string }

// A TLS is mutual TLS, whose certificates can be replaced while it is in use:
// clients must show a certificate that the CA signed.
type TLS struct {
	files   TLSFiles
	current atomic.Pointer[tls.Config]
}

// NewTLS reads the files.
func NewTLS(f TLSFiles) (*TLS, error) {
	t := &TLS{files: f}
	return t, t.Reload()
}

// Reload reads the files again, for connections from now on. After an error
// the earlier certificates stay.
func (t *TLS) Reload() error {
	pair, err := tls.LoadX509KeyPair(t.files.Cert, t.files.Key)
	if err != nil {
		return errs.New(errs.Invalid, "TLS certificate: %w", err)
	}
	pem, err := os.ReadFile(t.files.CA)
	if err != nil {
		return errs.New(errs.Invalid, "TLS CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return errs.New(errs.Invalid, "TLS CA: no certificate in %s", t.files.CA)
	}
	t.current.Store(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		NextProtos: []string{"http/1.1"},
	})
	return nil
}

// Config returns a configuration that always uses the latest files.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load(), nil },
	}
}

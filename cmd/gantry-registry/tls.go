package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// listen opens the address, with TLS if there is a certificate. certs is nil
// without.
func (c *config) listen() (l net.Listener, certs *certificates, err error) {
	if c.TLS.Cert != "" {
		certs = &certificates{files: c.TLS}
		if err := certs.reload(); err != nil {
			return nil, nil, err
		}
	} else if c.TLS.ClientCA != "" || c.TLS.Key != "" {
		return nil, nil, errors.New("TLS needs a certificate: --tls-cert and --tls-key")
	}
	l, err = net.Listen("tcp", c.Listen)
	if err != nil || certs == nil {
		return l, nil, err
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: certs.get}), certs, nil
}

// certificates are the server's certificate and those of its clients'
// authorities. They are read again when a file has changed; while the new ones
// are wrong, or half written, the old ones count.
type certificates struct {
	files tlsFiles
	mu    sync.Mutex
	stamp string
	conf  *tls.Config
}

// get returns what a connection is to use.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stamp := c.look(); stamp != c.stamp {
		if conf, err := c.load(); err == nil {
			c.conf, c.stamp = conf, stamp
		}
	}
	return c.conf, nil
}

// reload reads the files, changed or not, and tells what is wrong with them.
func (c *certificates) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := c.look()
	conf, err := c.load()
	if err == nil {
		c.conf, c.stamp = conf, stamp
	}
	return err
}

// look tells the states of the files apart.
func (c *certificates) look() (stamp string) {
	for _, f := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if f == "" {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(f, &st) == nil {
			stamp += fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim, " ")
		}
	}
	return stamp
}

func (c *certificates) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if c.files.ClientCA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(c.files.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("certificates of clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificates of clients: %s: no certificates", c.files.ClientCA)
	}
	conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	// A session that goes on shows no certificate: an authority that has been
	// taken away must count at once.
	conf.SessionTicketsDisabled = true
	return conf, nil
}

// Package driver is the remote log drivers: each sends messages to where its
// protocol's servers are, and tells what has arrived. logs/ship feeds them from
// a container's record; nothing here keeps, repeats or drops anything, or knows
// containers. It writes to sockets only.
package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"gantry/internal/plan"
)

// A Message is one entry of a log on its way.
type Message struct {
	Line    []byte // without a newline
	Stream  string // logs.Stdout or logs.Stderr
	Time    time.Time
	Partial *Partial // nil for a whole line
}

// Partial says which part of a line that was too long a message is.
type Partial struct {
	ID      string // the same for all parts
	Ordinal int    // from 1
	Last    bool
}

// A Sender sends the messages of one container to one remote. It connects when
// it has to. Its methods are called one at a time.
type Sender interface {
	// Send sends messages in order. After an error nobody knows how many
	// have arrived.
	Send(ctx context.Context, batch []Message) error
	// Doubt is how long after Send a message may still be lost without an
	// error, since the protocol knows no answers: zero if it does, or if
	// no error could ever tell.
	Doubt() time.Duration
	// Finish ends the connection. An error means that what was sent within
	// Doubt may not have arrived.
	Finish(ctx context.Context) error
}

// doubt is Doubt of byte streams without answers: what a living server has not
// read by then it will hardly read before it is ended.
const doubt = 2 * time.Second

// dialWithin and sendWithin bound one attempt to connect and to send a batch.
const (
	dialWithin = 10 * time.Second
	sendWithin = 30 * time.Second
)

// New returns the sender of a container's driver. It connects to nothing; the
// error says what is wrong with the options, in Docker's words.
func New(info plan.LogInfo) (Sender, error) {
	switch info.Driver {
	case "syslog":
		return newSyslog(info)
	case "fluentd":
		return newFluentd(info)
	case "gelf":
		return newGELF(info)
	case "splunk":
		return newSplunk(info)
	case "journald":
		return newJournald(info)
	}
	return nil, fmt.Errorf("logger: no log driver named '%s' is registered", info.Driver)
}

// tlsConfig reads what a client needs of certificates; empty paths are left out.
func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("could not read CA certificate %q: %w", ca, err)
		}
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("failed to append certificates from PEM file: %q", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("could not load X509 key pair: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// ignoreGone makes the error of a broken connection that of Finish: nothing if
// there was none.
func ignoreGone(err error) error {
	if errors.Is(err, errNoConnection) {
		return nil
	}
	return err
}

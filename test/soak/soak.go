// Package soak lets many clients do random operations on one daemon at once,
// on the same few containers, networks and volumes, and then looks whether
// anything is left: what the doctor finds, goroutines and descriptors. It must
// not import the engine: it is a client like any other.
package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A worker is one client: it picks operations by its own random numbers.
type worker struct {
	client *http.Client
	rand   *rand.Rand
	// seen counts answers by operation and status, and failures by text.
	seen     map[string]int
	failures map[string]int
}

// An operation is something that a client does. The answer's body has been read.
type operation struct {
	name   string
	weight int
	do     func(context.Context, *worker) (status int, text string, err error)
}

// limit is how long an operation may take: the longest stop waits for one
// second, everything else is a matter of a loaded machine.
const limit = 20 * time.Second

// call sends a request and reads the answer.
func (w *worker) call(ctx context.Context, method, path string, body any) (int, string, error) {
	var r io.Reader
	if body != nil {
		switch b := body.(type) {
		case []byte:
			r = bytes.NewReader(b)
		default:
			text, err := json.Marshal(b)
			if err != nil {
				return 0, "", err
			}
			r = bytes.NewReader(text)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://gantry"+path, r)
	if err != nil {
		return 0, "", err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// step does one operation. What a client may meet because others are at work on
// the same things is counted; all else is a failure.
func (w *worker) step(ctx context.Context, all []operation) {
	total := 0
	for _, o := range all {
		total += o.weight
	}
	n := w.rand.IntN(total)
	var op operation
	for _, o := range all {
		if n -= o.weight; n < 0 {
			op = o
			break
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	status, text, err := op.do(ctx, w)
	switch {
	case err != nil && op.name == "export" && errors.Is(err, io.ErrUnexpectedEOF):
		w.seen["export cut off"]++ // its container has been removed meanwhile
	case err != nil:
		w.failures[fmt.Sprintf("%s: after %s: %v", op.name, time.Since(began).Round(time.Second), err)]++
	case status >= 500 && !expected(text):
		w.failures[fmt.Sprintf("%s: %d: %s", op.name, status, plain(text))]++
	default:
		w.seen[fmt.Sprintf("%s %d", op.name, status)]++
	}
}

// expected reports whether an error is one that Docker too calls the server's
// although the client is at fault.
func expected(text string) bool {
	return slices.ContainsFunc([]string{
		"is not paused", "port is already allocated", "is not connected to", "invalid cluster node while attaching to network",
	}, func(s string) bool { return strings.Contains(text, s) })
}

// plain takes out of an error's text what makes each one different.
func plain(text string) string {
	words := strings.Fields(text)
	for i, word := range words {
		if len(strings.Trim(word, `"':,.(){}`)) >= 12 && strings.ContainsAny(word, "0123456789") {
			words[i] = "…"
		}
	}
	return strings.Join(words, " ")
}

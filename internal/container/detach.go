package container

import (
	"io"
	"sync"

	"gantry/internal/shim"
)

// defaultDetachKeys ends an attach if nobody says otherwise.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// keyScanner finds a key sequence in what a client types. A part of the
// sequence is held back until it is known to be none.
type keyScanner struct {
	keys []byte
	held int // how many of keys have been typed
}

// scan returns what of p is input, and whether the sequence was completed.
func (k *keyScanner) scan(p []byte) (input []byte, detached bool) {
	if len(k.keys) == 0 {
		return p, false
	}
	out := make([]byte, 0, len(p)+k.held)
	for _, b := range p {
		switch {
		case b == k.keys[k.held]:
			if k.held++; k.held == len(k.keys) {
				k.held = 0
				return out, true
			}
			continue
		case k.held > 0:
			out = append(out, k.keys[:k.held]...)
			k.held = 0
			if b == k.keys[0] {
				k.held = 1
				if len(k.keys) == 1 {
					return out, true
				}
				continue
			}
		}
		out = append(out, b)
	}
	return out, false
}

// detachable is a client's stream that ends when the detach keys are typed; the
// process goes on.
type detachable struct {
	shim.Stream
	onDetach func()

	mu      sync.Mutex // writers take turns
	scanner keyScanner
	gone    sync.Once
	away    chan struct{} // closed when the client has detached
}

func newDetachable(s shim.Stream, keys []byte, onDetach func()) *detachable {
	return &detachable{Stream: s, onDetach: onDetach, scanner: keyScanner{keys: keys}, away: make(chan struct{})}
}

// Write passes input on. At the detach keys the stream ends, and what the
// client sends from then on goes nowhere.
func (d *detachable) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.away:
		return len(p), nil
	default:
	}
	input, detached := d.scanner.scan(p)
	if len(input) > 0 {
		if _, err := d.Stream.Write(input); err != nil {
			return 0, err
		}
	}
	if detached {
		d.gone.Do(func() {
			close(d.away)
			d.onDetach()
		})
		return len(p), d.Stream.Close()
	}
	return len(p), nil
}

// Read ends with io.EOF when the client has detached.
func (d *detachable) Read(p []byte) (int, error) {
	n, err := d.Stream.Read(p)
	if err != nil {
		select {
		case <-d.away:
			return n, io.EOF
		default:
		}
	}
	return n, err
}

// CloseWrite ends the input, but not after the client has detached.
func (d *detachable) CloseWrite() error {
	select {
	case <-d.away:
		return nil
	default:
		return d.Stream.CloseWrite()
	}
}

// replayed is a stream that begins with what was printed before.
type replayed struct {
	shim.Stream
	before io.Reader // nil once it has been read
}

func (r *replayed) Read(p []byte) (int, error) {
	if r.before != nil {
		n, err := r.before.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		r.before = nil
		if err != io.EOF {
			return 0, err
		}
	}
	return r.Stream.Read(p)
}

// ended is the stream of a process that prints nothing more.
type ended struct{}

func (ended) Read([]byte) (int, error)    { return 0, io.EOF }
func (ended) Write(p []byte) (int, error) { return len(p), nil }
func (ended) CloseWrite() error           { return nil }
func (ended) Close() error                { return nil }

package cli

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/cli/term"
	"gantry/internal/client"
)

// pump moves bytes between the user and a container's process.
type pump struct {
	conn     *client.Conn
	tty      bool
	in       *os.File  // nil if standard input is not attached
	out, err io.Writer // nil if not attached
	keys     []byte    // what detaches; only with a terminal
}

// detachKeys parses the flag, or what config.json says, or the default.
func detachKeys(a *App, flag string) ([]byte, string, error) {
	s := flag
	if s == "" {
		s = a.config().DetachKeys
	}
	if s == "" {
		keys, err := term.ParseKeys(term.DefaultDetachKeys)
		return keys, "", err
	}
	keys, err := term.ParseKeys(s)
	return keys, s, err
}

// run pumps until the output ends, or the user detaches (term.ErrDetached), or
// ctx is done. The terminal is as it was when run returns.
func (p pump) run(ctx context.Context) error {
	restore := func() {}
	if p.tty && p.in != nil && term.IsTerminal(p.in) {
		st, err := term.RawInput(p.in)
		if err != nil {
			return err
		}
		restore = func() { _ = st.Restore() }
	}
	defer restore()
	outDone, inDone := p.output(), p.input()
	for {
		select {
		case err := <-outDone:
			return err
		case err := <-inDone:
			if errors.Is(err, term.ErrDetached) {
				return err
			}
			if outDone == nil {
				// Nothing comes back: the caller waits for the container's end.
				return nil
			}
			inDone = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// output starts the way from the container; nil if nothing of it is attached.
func (p pump) output() chan error {
	if p.out == nil && p.err == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var err error
		if p.tty {
			w := p.out
			if w == nil {
				w = p.err
			}
			_, err = io.Copy(w, p.conn)
		} else {
			err = term.Demux(p.out, p.err, p.conn)
		}
		done <- err
	}()
	return done
}

// input starts the way to the container. At the end of the input the connection
// is closed in that direction alone.
func (p pump) input() chan error {
	if p.in == nil {
		// The other side need not wait for input that will not come.
		_ = p.conn.CloseWrite()
		if p.out == nil && p.err == nil {
			done := make(chan error, 1)
			done <- nil
			return done
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var r io.Reader = p.in
		if p.tty && term.IsTerminal(p.in) {
			r = term.NewDetachReader(p.in, p.keys)
		}
		_, err := io.Copy(p.conn, r)
		if err == nil {
			err = p.conn.CloseWrite()
		}
		done <- err
	}()
	return done
}

// outFile returns standard output as a file, nil in tests that use a buffer.
func outFile(a *App) *os.File {
	f, _ := a.Out.(*os.File)
	return f
}

func (a *App) outIsTerminal() bool {
	f := outFile(a)
	return f != nil && term.IsTerminal(f)
}

func (a *App) outSize() term.Size {
	if f := outFile(a); f != nil {
		return term.SizeOf(f)
	}
	return term.Size{}
}

// needTTY refuses -t together with -i when the input is no terminal.
func needTTY(a *App) error {
	if !term.IsTerminal(a.In) {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// followSize tells the daemon the terminal's size now and whenever it changes,
// until the returned function is called. path is …/resize of a container or exec.
func followSize(ctx context.Context, a *App, path string) func() {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Right after a start the process may not be there yet.
		for try := 0; try < 5 && resizeTTY(ctx, a, path) != nil && ctx.Err() == nil; try++ {
			select {
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		for {
			select {
			case <-ch:
				_ = resizeTTY(ctx, a, path)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		cancel()
		<-done
	}
}

func resizeTTY(ctx context.Context, a *App, path string) error {
	s := a.outSize()
	if s.Height == 0 && s.Width == 0 {
		return nil
	}
	q := url.Values{"h": {strconv.Itoa(int(s.Height))}, "w": {strconv.Itoa(int(s.Width))}}
	return a.api.Post(ctx, path, q, nil, nil)
}

// signalTimeout bounds how long the daemon may take to pass a signal on.
const signalTimeout = 5 * time.Second

// proxySignals sends the signals that this process gets to the container instead,
// until the returned function is called. If the daemon can't be reached, lost is
// called: then a signal must not be swallowed, or nothing could end this process.
func proxySignals(ctx context.Context, a *App, id string, lost func(error)) func() {
	a.sig.stop()
	ch := make(chan os.Signal, 128)
	classic, realTime := forwarded()
	signal.Notify(ch, classic...)
	// The Go runtime takes signals over one by one, some 30 µs each: the many
	// that hardly anybody sends are not waited for.
	all := make(chan struct{})
	go func() {
		defer close(all)
		signal.Notify(ch, realTime...)
	}()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-ch:
				if err := sendSignal(ctx, a, id, s.(syscall.Signal)); err != nil && ctx.Err() == nil {
					lost(err)
					return
				}
			}
		}
	}()
	return func() {
		cancel()
		<-done
		go func() { // nor are they when they are given back, as a rule at the end of the process
			<-all
			signal.Stop(ch)
		}()
	}
}

// sendSignal passes one signal on. A refusal (it has just ended, it has not yet
// started) is no error.
func sendSignal(ctx context.Context, a *App, id string, s syscall.Signal) error {
	name := unix.SignalName(s)
	if name == "" {
		name = strconv.Itoa(int(s)) // a real-time signal
	}
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	err := a.api.Post(ctx, containerPath(id, "kill"), url.Values{"signal": {name}}, nil, nil)
	var refused *client.Error
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// forwarded returns the signals that are meant for the container, those of
// signal(7)'s table and the real-time ones. Not those about this process itself:
// its children, pipes, faults, profiling, its window; and not job control, by
// which the shell stops and continues this process.
func forwarded() (classic, realTime []os.Signal) {
	own := map[syscall.Signal]bool{
		syscall.SIGKILL: true, syscall.SIGSTOP: true, syscall.SIGCHLD: true, syscall.SIGPIPE: true, syscall.SIGURG: true, syscall.SIGWINCH: true,
		syscall.SIGTSTP: true, syscall.SIGTTIN: true, syscall.SIGTTOU: true, syscall.SIGCONT: true, syscall.SIGPROF: true, syscall.SIGSEGV: true,
		syscall.SIGBUS: true, syscall.SIGFPE: true, syscall.SIGILL: true, syscall.SIGTRAP: true, syscall.SIGSYS: true,
	}
	for s := syscall.Signal(1); s < 32; s++ {
		if !own[s] {
			classic = append(classic, s)
		}
	}
	// 32 and 33 belong to the C library's threads.
	for s := syscall.Signal(34); s <= 64; s++ {
		realTime = append(realTime, s)
	}
	return classic, realTime
}

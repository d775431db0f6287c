package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/create"
	"gantry/internal/cli/opt"
	"gantry/internal/cli/ref"
	"gantry/internal/cli/term"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// createOptions are flags of run and create that are not part of the request.
type createOptions struct {
	name, platform, pull string
	quiet, useAPISocket  bool
	extra                *wire.CreateExtra
	credentials          []byte // of --use-api-socket: a config.json
}

// Values of --pull.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// register defines the flags; doing is what pulling comes before.
func (o *createOptions) register(fs *pflag.FlagSet, doing string) {
	fs.StringVar(&o.name, "name", "", "Assign a name to the container")
	fs.StringVar(&o.pull, "pull", pullMissing, "Pull image before "+doing+` ("always", "missing", "never")`)
	fs.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&o.useAPISocket, "use-api-socket", false, "Bind mount Docker API socket and required auth")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkDeprecated("disable-content-trust", "support for docker content trust was removed")
}

type runOptions struct {
	createOptions
	detach, sigProxy bool
	detachKeys       string
}

func runCommand(a *App) *cobra.Command {
	var o runOptions
	var f *create.Flags
	cmd := leaf("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", minArgs(1), func(cmd *cobra.Command, args []string) error {
		f.Image, f.Args = args[0], args[1:]
		return runContainer(cmd.Context(), a, cmd.Flags(), &o, f)
	})
	fs := cmd.Flags()
	o.register(fs, "running")
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f = create.Register(fs)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func createCommand(a *App) *cobra.Command {
	var o createOptions
	var f *create.Flags
	cmd := leaf("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", minArgs(1), func(cmd *cobra.Command, args []string) error {
		f.Image, f.Args = args[0], args[1:]
		req, err := createRequest(a, cmd.Flags(), &o, f)
		if err != nil {
			return a.withHelp(err, "create")
		}
		id, err := createContainer(cmd.Context(), a, req, &o)
		if err != nil {
			return err // unlike run, with code 1: no exit code of a container is in its way
		}
		fmt.Fprintln(a.Out, id)
		return nil
	})
	o.register(cmd.Flags(), "creating")
	f = create.Register(cmd.Flags())
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

// request turns the flags into the body of the create call.
func createRequest(a *App, fs *pflag.FlagSet, o *createOptions, f *create.Flags) (*wire.CreateRequest, error) {
	if _, err := a.client(); err != nil {
		return nil, err
	}
	switch o.pull {
	case pullAlways, pullMissing, pullNever, "":
	default:
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", o.pull, pullAlways, pullMissing, pullNever)
	}
	f.AddMissingEnv(a.config().ProxyEnv(a.target.Host))
	req, err := f.Request(fs)
	if err != nil {
		return nil, err
	}
	if o.useAPISocket {
		if o.credentials, err = useAPISocket(a, req); err != nil {
			return nil, err
		}
	}
	o.extra = f.Extra()
	s := a.outSize()
	req.HostConfig.ConsoleSize = [2]uint{s.Height, s.Width}
	return req, nil
}

// create makes the container, pulling its image if that is missing, and returns
// the id.
func createContainer(ctx context.Context, a *App, req *wire.CreateRequest, o *createOptions) (string, error) {
	q := url.Values{}
	if o.platform != "" {
		if _, _, _, err := opt.Platform(o.platform); err != nil {
			return "", err
		}
		q.Set("platform", o.platform)
	}
	if o.name != "" {
		q.Set("name", o.name)
	}
	cid, err := newCIDFile(req.HostConfig.ContainerIDFile)
	if err != nil {
		return "", err
	}
	defer cid.close()
	name, refErr := ref.Parse(req.Image)
	if refErr != nil && !looksLikeID(req.Image) {
		return "", refErr
	}
	if o.pull == pullAlways {
		if err := pullFor(ctx, a, name.Tagged(), o); err != nil {
			return "", err
		}
	}
	var res wire.CreateResponse
	body := struct {
		*wire.CreateRequest
		Gantry *wire.CreateExtra `json:",omitempty"`
	}{req, o.extra}
	err = a.api.Post(ctx, "/containers/create", q, body, &res)
	if client.IsNotFound(err) && refErr == nil && !looksLikeID(req.Image) && (o.pull == pullMissing || o.pull == "") {
		if !o.quiet {
			fmt.Fprintf(a.Err, "Unable to find image '%s' locally\n", name.Tagged())
		}
		if err := pullFor(ctx, a, name.Tagged(), o); err != nil {
			return "", err
		}
		err = a.api.Post(ctx, "/containers/create", q, body, &res)
	}
	if err != nil {
		return "", err
	}
	for _, w := range res.Warnings {
		fmt.Fprintln(a.Err, "WARNING:", w)
	}
	if err := putCredentials(ctx, a, res.ID, o.credentials); err != nil {
		return "", err
	}
	return res.ID, cid.write(res.ID)
}

func looksLikeID(s string) bool {
	s = strings.TrimPrefix(s, "sha256:")
	if len(s) != 64 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// pullFor pulls on behalf of run and create: progress goes to standard error,
// as standard output belongs to the container.
func pullFor(ctx context.Context, a *App, n ref.Name, o *createOptions) error {
	out := a.Err
	if o.quiet {
		out = io.Discard
	}
	return pullImage(ctx, a, n, pullOptions{platform: o.platform}, out)
}

// cidFile is the file of --cidfile: it must not exist before, and is removed if
// no id came.
type cidFile struct {
	f       *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	if _, err := c.f.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() {
	if c.f == nil {
		return
	}
	_ = c.f.Close()
	if !c.written {
		_ = os.Remove(c.f.Name())
	}
}

// run is create, attach, wait, start, and the container's exit code.
func runContainer(ctx context.Context, a *App, fs *pflag.FlagSet, o *runOptions, f *create.Flags) error {
	req, err := createRequest(a, fs, &o.createOptions, f)
	if err != nil {
		if a.api == nil {
			return err
		}
		return a.withHelp(err, "run")
	}
	if o.detach {
		if f.Attached() {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
	} else if req.AttachStdin && req.Tty {
		if err := needTTY(a); err != nil {
			return err
		}
	}
	keys, keyText, err := detachKeys(a, o.detachKeys)
	if err != nil {
		return err
	}
	id, err := createContainer(ctx, a, req, &o.createOptions)
	if err != nil {
		return runError(ctx, a, err)
	}
	if !req.AttachStdin && !req.AttachStdout && !req.AttachStderr {
		if err := a.api.Post(ctx, containerPath(id, "start"), nil, nil, nil); err != nil {
			fmt.Fprintln(a.Out, id)
			return runError(ctx, a, err)
		}
		fmt.Fprintln(a.Out, id)
		return nil
	}
	s := session{
		app: a, id: id, tty: req.Tty, keys: keys, keyText: keyText, removed: f.AutoRemove(),
		stdin: req.AttachStdin, stdout: req.AttachStdout, stderr: req.AttachStderr, sigProxy: o.sigProxy,
	}
	err = s.startAndWait(ctx)
	var se *startError
	if errors.As(err, &se) {
		return runError(ctx, a, se.err)
	}
	return err
}

// runError is a failure before the container's program ran.
func runError(ctx context.Context, a *App, err error) error {
	var c *client.ConnectError
	if ctx.Err() != nil {
		return err
	}
	if errors.As(err, &c) {
		if a.name != "docker" {
			err = fmt.Errorf("Cannot connect to the Gantry daemon at %s. Is gantryd running?", c.Host)
		}
	}
	return a.withHelp(err, "run")
}

// session is a container that this process starts and stays attached to.
type session struct {
	app                   *App
	id                    string
	tty, removed          bool
	stdin, stdout, stderr bool
	sigProxy              bool
	keys                  []byte
	keyText               string
}

// startError says that the start call failed, after attaching.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

func (s session) attachQuery() url.Values {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": s.stdin, "stdout": s.stdout, "stderr": s.stderr} {
		if on {
			q.Set(name, "1")
		}
	}
	if s.keyText != "" {
		q.Set("detachKeys", s.keyText)
	}
	return q
}

// startAndWait attaches and asks for the exit code, both at the same time and
// before the start, so that nothing is missed, then starts and pumps.
func (s session) startAndWait(ctx context.Context) error {
	a := s.app
	type waited struct {
		w   *waiter
		err error
	}
	waitReady := make(chan waited, 1)
	waitCtx, cancelWait := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWait()
	cond := "next-exit"
	if s.removed {
		cond = "removed"
	}
	go func() {
		w, err := a.wait(waitCtx, s.id, cond)
		waitReady <- waited{w, err}
	}()
	conn, err := a.api.Hijack(ctx, containerPath(s.id, "attach"), s.attachQuery(), nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	w := <-waitReady
	if w.err != nil {
		return w.err
	}
	if s.sigProxy {
		var lost context.CancelCauseFunc
		ctx, lost = context.WithCancelCause(context.WithoutCancel(ctx))
		defer lost(nil)
		defer proxySignals(ctx, a, s.id, lost)()
	}
	pumpCtx, stopPump := context.WithCancel(ctx)
	defer stopPump()
	pumped := make(chan error, 1)
	go func() { pumped <- s.pump(conn).run(pumpCtx) }()
	if err := a.api.Post(ctx, containerPath(s.id, "start"), nil, nil, nil); err != nil {
		stopPump()
		<-pumped
		if s.removed {
			<-w.w.done // --rm removes it although it never ran
		}
		return &startError{err}
	}
	if s.tty && a.outIsTerminal() {
		defer followSize(ctx, a, containerPath(s.id, "resize"))()
	}
	return s.finish(ctx, w.w, pumped, stopPump)
}

func (s session) pump(conn *client.Conn) pump {
	p := pump{conn: conn, tty: s.tty, keys: s.keys}
	if s.stdin {
		p.in = s.app.In
	}
	if s.stdout {
		p.out = s.app.Out
	}
	if s.stderr {
		p.err = s.app.Err
		if s.tty {
			p.err = s.app.Out
		}
	}
	return p
}

// finish waits for both the output's end and the exit code.
func (s session) finish(ctx context.Context, w *waiter, pumped chan error, stopPump func()) error {
	select {
	case err := <-pumped:
		if errors.Is(err, term.ErrDetached) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case <-w.done:
		if !s.stdout && !s.stderr {
			stopPump()
		}
		<-pumped
	}
	return w.status()
}

// waiter is a wait call whose header has come.
type waiter struct {
	done chan struct{}
	res  wire.WaitResponse
	err  error
}

// wait returns when the daemon has noted the wish to know about id's end.
func (a *App) wait(ctx context.Context, id, condition string) (*waiter, error) {
	q := url.Values{}
	if condition != "" {
		q.Set("condition", condition)
	}
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodPost, Path: containerPath(id, "wait"), Query: q})
	if err != nil {
		return nil, err
	}
	w := &waiter{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer res.Body.Close()
		w.err = decodeWait(res.Body, &w.res)
	}()
	return w, nil
}

// status is the container's exit as an error: nil for 0.
func (w *waiter) status() error {
	switch {
	case w.err != nil:
		return &StatusError{Text: w.err.Error(), Code: codeFailed}
	case w.res.Error != nil:
		return &StatusError{Text: w.res.Error.Message, Code: codeFailed}
	case w.res.StatusCode != 0:
		return &StatusError{Code: int(w.res.StatusCode)}
	}
	return nil
}

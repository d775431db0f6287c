package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"gantry/internal/cli/opt"
	"gantry/internal/cli/term"
	"gantry/internal/wire"
)

func decodeWait(r io.Reader, out *wire.WaitResponse) error {
	if err := json.NewDecoder(r).Decode(out); err != nil {
		return fmt.Errorf("waiting for the container: %w", err)
	}
	return nil
}

type startOptions struct {
	attach, stdin                         bool
	detachKeys, checkpoint, checkpointDir string
}

func startCommand(a *App) *cobra.Command {
	var o startOptions
	cmd := leaf("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", minArgs(1), func(cmd *cobra.Command, args []string) error {
		return startContainers(cmd.Context(), a, args, &o)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&o.stdin, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.StringVar(&o.checkpoint, "checkpoint", "", "Restore from this checkpoint")
	fs.StringVar(&o.checkpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func startContainers(ctx context.Context, a *App, names []string, o *startOptions) error {
	if _, err := a.client(); err != nil {
		return err
	}
	if !o.attach && !o.stdin {
		return startDetached(ctx, a, names, o)
	}
	if len(names) > 1 {
		return errors.New("you cannot start and attach multiple containers at once")
	}
	c, err := a.inspectContainer(ctx, names[0])
	if err != nil {
		return err
	}
	keys, text, err := detachKeys(a, o.detachKeys)
	if err != nil {
		return err
	}
	s := session{
		app: a, id: c.ID, tty: c.Config.Tty, removed: c.HostConfig.AutoRemove, keys: keys, keyText: text,
		stdin: o.stdin && c.Config.OpenStdin, stdout: true, stderr: true, sigProxy: !c.Config.Tty,
	}
	return s.startAndWait(ctx)
}

func startDetached(ctx context.Context, a *App, names []string, o *startOptions) error {
	q := url.Values{}
	if o.checkpoint != "" {
		q.Set("checkpoint", o.checkpoint)
		q.Set("checkpoint-dir", o.checkpointDir)
	}
	var failed []string
	for _, n := range names {
		if err := a.api.Post(ctx, containerPath(n, "start"), q, nil, nil); err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintln(a.Err, err)
			failed = append(failed, n)
			continue
		}
		fmt.Fprintln(a.Out, n)
	}
	if failed == nil {
		return nil
	}
	text := "Error: failed to start containers: "
	for i, n := range failed {
		if i > 0 {
			text += ", "
		}
		text += n
	}
	return errors.New(text)
}

type attachOptions struct {
	noStdin, proxy bool
	detachKeys     string
}

func attachCommand(a *App) *cobra.Command {
	var o attachOptions
	cmd := leaf("attach [OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		return attachTo(cmd.Context(), a, args[0], &o)
	})
	cmd.Flags().BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&o.proxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func attachTo(ctx context.Context, a *App, name string, o *attachOptions) error {
	c, err := a.inspectContainer(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case !c.State.Running:
		return errors.New("You cannot attach to a stopped container, start it first") //nolint: the text is Docker's
	case c.State.Paused:
		return errors.New("You cannot attach to a paused container, unpause it first")
	case c.State.Restarting:
		return errors.New("You cannot attach to a restarting container, wait until it is running")
	}
	stdin := !o.noStdin && c.Config.OpenStdin
	if stdin && c.Config.Tty {
		if err := needTTY(a); err != nil {
			return err
		}
	}
	keys, text, err := detachKeys(a, o.detachKeys)
	if err != nil {
		return err
	}
	s := session{app: a, id: c.ID, tty: c.Config.Tty, keys: keys, keyText: text, stdin: stdin, stdout: true, stderr: true}
	waitCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	w, err := a.wait(waitCtx, c.ID, "")
	if err != nil {
		return err
	}
	conn, err := a.api.Hijack(ctx, containerPath(c.ID, "attach"), s.attachQuery(), nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if o.proxy && !c.Config.Tty {
		var lost context.CancelCauseFunc
		ctx, lost = context.WithCancelCause(context.WithoutCancel(ctx))
		defer lost(nil)
		defer proxySignals(ctx, a, c.ID, lost)()
	}
	if c.Config.Tty && a.outIsTerminal() {
		repaintTTY(ctx, a, c.ID)
		defer followSize(ctx, a, containerPath(c.ID, "resize"))()
	}
	if err := s.pump(conn).run(ctx); err != nil {
		if errors.Is(err, term.ErrDetached) {
			return &StatusError{Text: "read escape sequence", Code: 0}
		}
		return err
	}
	// The stream also ends when someone detaches this client from elsewhere, so the
	// exit code is only reported if the container is gone.
	select {
	case <-w.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return w.attachStatus()
}

// attachStatus is status with attach's own exit code for a failed wait.
func (w *waiter) attachStatus() error {
	if w.err == nil && w.res.Error != nil {
		return errors.New(w.res.Error.Message)
	}
	return w.status()
}

// repaint makes a program draw its screen again, by a size that is one cell off:
// the right size follows.
func repaintTTY(ctx context.Context, a *App, id string) {
	s := a.outSize()
	q := url.Values{"h": {fmt.Sprint(s.Height + 1)}, "w": {fmt.Sprint(s.Width + 1)}}
	_ = a.api.Post(ctx, containerPath(id, "resize"), q, nil, nil)
}

type execOptions struct {
	detach, stdin, tty, privileged bool
	detachKeys, user, workdir      string
	env, envFile                   opt.List
}

func execCommand(a *App) *cobra.Command {
	var o execOptions
	cmd := leaf("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", minArgs(2), func(cmd *cobra.Command, args []string) error {
		return execIn(cmd.Context(), a, args[0], args[1:], &o)
	})
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVarP(&o.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	o.env.Check = opt.Env(lookupEnv)
	fs.VarP(&o.env, "env", "e", "Set environment variables")
	fs.Var(&o.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func execIn(ctx context.Context, a *App, name string, argv []string, o *execOptions) error {
	if _, err := a.client(); err != nil {
		return err
	}
	env, err := opt.ReadFiles(o.envFile.Values, o.env.Values, opt.EnvLine(lookupEnv))
	if err != nil {
		return err
	}
	if !o.detach {
		if o.stdin && o.tty {
			if err := needTTY(a); err != nil {
				return err
			}
		}
	}
	keys, text, err := detachKeys(a, o.detachKeys)
	if err != nil {
		return err
	}
	req := wire.ExecCreate{
		User: o.user, Privileged: o.privileged, Tty: o.tty, Env: env, WorkingDir: o.workdir, Cmd: argv, DetachKeys: text,
		AttachStdin: o.stdin && !o.detach, AttachStdout: !o.detach, AttachStderr: !o.detach,
	}
	if s := a.outSize(); o.tty && s.Height > 0 && s.Width > 0 {
		req.ConsoleSize = &[2]uint{s.Height, s.Width}
	}
	var created struct {
		ID string `json:"Id"`
	}
	if err := a.api.Post(ctx, containerPath(name, "exec"), nil, req, &created); err != nil {
		return err
	}
	path := "/exec/" + created.ID
	start := wire.ExecStart{Detach: o.detach, Tty: o.tty, ConsoleSize: req.ConsoleSize}
	if o.detach {
		return a.api.Post(ctx, path+"/start", nil, start, nil)
	}
	conn, err := a.api.Hijack(ctx, path+"/start", nil, start)
	if err != nil {
		return err
	}
	defer conn.Close()
	if o.tty && a.outIsTerminal() {
		defer followSize(ctx, a, path+"/resize")()
	}
	s := session{app: a, tty: o.tty, keys: keys, stdin: o.stdin, stdout: true, stderr: true}
	if err := s.pump(conn).run(ctx); err != nil {
		if errors.Is(err, term.ErrDetached) {
			return nil
		}
		return err
	}
	return execStatus(ctx, a, path)
}

// execStatus asks for the exit code of an exec whose stream has ended.
func execStatus(ctx context.Context, a *App, path string) error {
	var res wire.ExecInspect
	if err := a.api.Get(ctx, path+"/json", nil, &res); err != nil {
		return err
	}
	if res.ExitCode != nil && *res.ExitCode != 0 {
		return &StatusError{Code: *res.ExitCode}
	}
	return nil
}

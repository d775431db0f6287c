package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/term"
	"gantry/internal/client"
)

type loginOptions struct {
	user, password string
	stdin          bool
}

func loginCommand(a *App) *cobra.Command {
	var o loginOptions
	cmd := leaf("login [OPTIONS] [SERVER]", "Authenticate to a registry", maxArgs(1), func(cmd *cobra.Command, args []string) error {
		server := conf.HubServer
		if len(args) == 1 {
			server = conf.ServerKey(hostOf(args[0]))
		}
		return logIn(cmd.Context(), a, server, &o)
	})
	cmd.Long = "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified."
	cmd.Flags().StringVarP(&o.user, "username", "u", "", "Username")
	cmd.Flags().StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	cmd.Flags().BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

func hostOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	h, _, _ := strings.Cut(s, "/")
	return h
}

func logIn(ctx context.Context, a *App, server string, o *loginOptions) error {
	if o.password != "" {
		if o.stdin {
			return errors.New("conflicting options: cannot specify both --password and --password-stdin")
		}
		fmt.Fprintln(a.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if o.stdin {
		if o.user == "" {
			return errors.New("the --password-stdin option requires --username to be set")
		}
		b, err := io.ReadAll(io.LimitReader(a.In, 1<<16))
		if err != nil {
			return err
		}
		o.password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	auth := conf.Auth{Username: o.user, Password: o.password, ServerAddress: server}
	if o.user == "" && o.password == "" {
		done, err := logInAgain(ctx, a, server)
		if done || err != nil {
			return err
		}
	}
	if auth.Password == "" {
		if auth, err = askLogin(ctx, a, server, o.user); err != nil {
			return err
		}
	}
	return present(ctx, a, c, auth)
}

// logInAgain tries the credentials that are kept. It has done it if there are
// some and they are good; if they are refused, others are to be asked for.
func logInAgain(ctx context.Context, a *App, server string) (done bool, err error) {
	auth, err := a.config().Credentials(server)
	if err != nil {
		return false, err
	}
	if auth.Password == "" && auth.IdentityToken == "" {
		return false, nil
	}
	auth.ServerAddress = server
	fmt.Fprint(a.Err, "Authenticating with existing credentials...")
	if auth.Username != "" {
		fmt.Fprintf(a.Err, " [Username: %s]", auth.Username)
	}
	fmt.Fprint(a.Err, "\n\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n\n\n")
	c, err := a.client()
	if err != nil {
		return false, err
	}
	status, _, err := tryLogin(ctx, c, auth)
	if err != nil {
		fmt.Fprintln(a.Err, "Login did not succeed, error:", err)
		return false, nil
	}
	fmt.Fprintln(a.Out, status)
	return true, nil
}

// tryLogin has the daemon check credentials. It returns them as they are to be
// kept.
func tryLogin(ctx context.Context, c *client.Client, auth conf.Auth) (status string, keep conf.Auth, err error) {
	var res struct{ Status, IdentityToken string }
	if err := c.Post(ctx, "/auth", nil, auth, &res); err != nil {
		return "", auth, err
	}
	if res.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", res.IdentityToken
	}
	return res.Status, auth, nil
}

// present has the daemon check new credentials, and keeps them.
func present(ctx context.Context, a *App, c *client.Client, auth conf.Auth) error {
	status, auth, err := tryLogin(ctx, c, auth)
	if err != nil {
		return err
	}
	helper, err := a.config().Store(auth.ServerAddress, auth)
	if err != nil {
		return fmt.Errorf("error saving credentials: %w", err)
	}
	if helper == "" {
		fmt.Fprintf(a.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", a.config().Filename())
	}
	if status != "" {
		fmt.Fprintln(a.Out, status)
	}
	return nil
}

// askLogin asks for what is missing; the password is not shown.
func askLogin(ctx context.Context, a *App, server, user string) (conf.Auth, error) {
	if !term.IsTerminal(a.In) {
		return conf.Auth{}, errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	in := bufio.NewReader(a.In)
	var err error
	if user == "" {
		fmt.Fprint(a.Out, "Username: ")
		if user, err = readLine(ctx, in); err != nil {
			return conf.Auth{}, err
		}
		if user == "" {
			return conf.Auth{}, errors.New("username is required")
		}
	}
	fmt.Fprint(a.Out, "Password: ")
	st, err := term.NoEcho(a.In)
	if err != nil {
		return conf.Auth{}, err
	}
	defer func() { _ = st.Restore() }()
	pass, err := readLine(ctx, in)
	fmt.Fprintln(a.Out)
	if err != nil {
		return conf.Auth{}, err
	}
	if pass == "" {
		return conf.Auth{}, errors.New("password is required")
	}
	return conf.Auth{Username: user, Password: pass, ServerAddress: server}, nil
}

// readLine reads a line, or ends with ctx. The reader of a line that never comes
// ends with the process.
func readLine(ctx context.Context, in *bufio.Reader) (string, error) {
	type result struct {
		s   string
		err error
	}
	ch := make(chan result, 1)
	go func() {
		s, err := in.ReadString('\n')
		ch <- result{strings.TrimSpace(s), err}
	}()
	select {
	case r := <-ch:
		return r.s, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func logoutCommand(a *App) *cobra.Command {
	cmd := leaf("logout [SERVER]", "Log out from a registry", maxArgs(1), func(_ *cobra.Command, args []string) error {
		server := conf.HubServer
		if len(args) == 1 {
			server = conf.ServerKey(hostOf(args[0]))
		}
		fmt.Fprintln(a.Out, "Removing login credentials for", server)
		if err := a.config().Erase(server); err != nil {
			return fmt.Errorf("WARNING: could not erase credentials: %w", err)
		}
		return nil
	})
	cmd.Long = "Log out from a registry.\nIf no server is specified, the default is defined by the daemon."
	return cmd
}

package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// dialStdioCommand connects standard input and output with the daemon: the far
// end of an ssh:// host.
func dialStdioCommand(a *App) *cobra.Command {
	return leaf("dial-stdio", "Proxy the stdio stream to the daemon connection. Should not be invoked manually.", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		conn, err := c.Dial(cmd.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		down := make(chan error, 1)
		go func() {
			_, err := io.Copy(a.Out, conn)
			down <- err
		}()
		go func() {
			_, _ = io.Copy(conn, a.In)
			if h, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = h.CloseWrite()
			}
		}()
		select {
		case err := <-down:
			return err
		case <-cmd.Context().Done():
			return errors.New("interrupted")
		}
	})
}

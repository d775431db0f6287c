package buildx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	api "gantry/internal/client"
)

// printError prints the places in the Dockerfile that err is about, and err.
func printError(w io.Writer, err error) {
	for _, s := range errdefs.Sources(err) {
		_ = s.Print(w) // a terminal: nothing can be done
	}
	var c *api.ConnectError
	if errors.As(err, &c) {
		err = fmt.Errorf("Cannot connect to the daemon at %s. Is gantryd running?", c.Host)
	}
	fmt.Fprintf(w, "ERROR: %v\n", err)
}

// exitCode is 130 for a build that was cancelled, 100 and 102 for faults of the
// daemon and for a lack of resources, else 1.
func exitCode(err error) int {
	switch grpcerrors.Code(err) {
	case codes.Internal:
		return 100
	case codes.ResourceExhausted:
		return 102
	case codes.Canceled:
		return 130
	}
	if errors.Is(err, context.Canceled) {
		return 130
	}
	return 1
}

// frontendError explains an error of a frontend that is too old for a flag.
func frontendError(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := grpcerrors.AsGRPCStatus(err); ok && s.Code() == codes.Unimplemented && strings.Contains(s.Message(), "unsupported frontend capability moby.buildkit.frontend.contexts") {
		return fmt.Errorf("current frontend does not support --build-context. Named contexts are supported since Dockerfile v1.4. Use #syntax directive in Dockerfile")
	}
	return err
}

// help prints what a command is for.
func help(w io.Writer, cmd *cobra.Command) {
	use := cmd.UseLine()
	if cmd.HasSubCommands() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(w, "Usage:  %s\n\n%s\n", use, cmd.Short)
	if names := cmd.Annotations["aliases"]; names != "" {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", names)
	}
	if cmd.HasSubCommands() {
		fmt.Fprint(w, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-11s %s\n", c.Name(), c.Short)
			}
		}
	}
	if h := cmd.Flags().Lookup("help"); h != nil {
		h.Hidden = true
	}
	if s := cmd.Flags().FlagUsagesWrapped(100); s != "" {
		fmt.Fprintf(w, "\nOptions:\n%s", s)
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

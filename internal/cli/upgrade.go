package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/client"
)

// upgradeState is what the daemon says of its program.
type upgradeState struct {
	Version, Commit, Program string
	Attempt                  int
	Error                    string
}

func upgradeCommand(a *App) *cobra.Command {
	return leaf("upgrade [PROGRAM]", "Replace the daemon's program while containers go on", maxArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if len(args) > 0 {
			path := args[0]
			if filepath.Base(path) != path { // a name alone is not looked up here
				if path, err = filepath.Abs(path); err != nil {
					return err
				}
			}
			q.Set("path", path)
		}
		before, err := askUpgrade(cmd.Context(), c, http.MethodPost, q)
		if err != nil {
			return err
		}
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			now, err := askUpgrade(cmd.Context(), c, http.MethodGet, nil)
			switch {
			case err != nil:
				return err
			case now.Attempt != before.Attempt && now.Error != "":
				return errors.New(now.Error + "\nThe daemon serves on with the program before")
			case now.Attempt != before.Attempt:
				fmt.Fprintf(a.Out, "%s (%s) serves, from %s\n", now.Version, now.Commit, now.Program)
				return nil
			}
			select {
			case <-tick.C:
			case <-cmd.Context().Done():
				return context.Cause(cmd.Context())
			}
		}
	})
}

func askUpgrade(ctx context.Context, c *client.Client, method string, q url.Values) (s upgradeState, err error) {
	res, err := c.Stream(ctx, client.Request{Method: method, Path: "/gantry/upgrade", Query: q, Raw: true})
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return s, nil
}

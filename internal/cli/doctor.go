package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/client"
)

// finding is something that exists and that nothing owns.
type finding struct {
	Kind, Name, Owner string
	Reason            string
	Fixed             bool
	Error             string
}

// findings is the daemon's report.
type findings struct {
	Findings []finding
	Errors   []string
}

func doctorCommand(a *App) *cobra.Command {
	var fix, asJSON bool
	cmd := leaf("doctor [OPTIONS]", "Find what exists on the daemon's host and belongs to no container", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		r := client.Request{Method: http.MethodGet, Path: "/gantry/doctor", Raw: true}
		if fix {
			r.Method, r.Query = http.MethodPost, url.Values{"fix": {"1"}}
		}
		res, err := c.Stream(cmd.Context(), r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var raw json.RawMessage
		if err := json.NewDecoder(res.Body).Decode(&raw); err != nil {
			return fmt.Errorf("reading the daemon's answer: %w", err)
		}
		var f findings
		if err := json.Unmarshal(raw, &f); err != nil {
			if err := json.Unmarshal(raw, &f.Findings); err != nil {
				return fmt.Errorf("reading the daemon's answer: %w", err)
			}
		}
		if asJSON {
			fmt.Fprintln(a.Out, string(raw))
			return f.verdict()
		}
		return showFindings(a, f)
	})
	cmd.Flags().BoolVar(&fix, "fix", false, "Remove what is found")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print in JSON format")
	return cmd
}

// showFindings prints the report.
func showFindings(a *App, f findings) error {
	if len(f.Findings) > 0 {
		var w strings.Builder
		w.WriteString("KIND\tNAME\tOWNER\tSTATE\n")
		for _, x := range f.Findings {
			fmt.Fprintf(&w, "%s\t%s\t%.12s\t%s\n", x.Kind, x.Name, x.Owner, x.state())
		}
		if err := formatter.Lists().Write(a.Out, w.String()); err != nil {
			return err
		}
	}
	for _, e := range f.Errors {
		fmt.Fprintln(a.Err, "WARNING:", e)
	}
	err := f.verdict()
	if err == nil && len(f.Findings) == 0 {
		fmt.Fprintln(a.Out, "Nothing is left over.")
	}
	return err
}

// firewall is the kind of what is not left over, but in the way.
const firewall = "firewall"

func (x finding) state() string {
	switch {
	case x.Kind == firewall && x.Fixed:
		return "mended"
	case x.Kind == firewall && x.Error == "":
		return "in the way"
	case x.Fixed:
		return "removed"
	case x.Error != "":
		return "failed: " + x.Error
	case x.Reason != "":
		return x.Reason
	}
	return "left over"
}

// verdict is an error if anything is left over, so that a script can end with
// the command.
func (f findings) verdict() error {
	left := 0
	for _, x := range f.Findings {
		if !x.Fixed && x.Kind != firewall {
			left++
		}
	}
	switch {
	case left > 0:
		return &StatusError{Text: fmt.Sprintf("%d found", left), Code: 1}
	case len(f.Errors) > 0:
		return &StatusError{Text: "not everything could be looked at", Code: 1}
	}
	return nil
}

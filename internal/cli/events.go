package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/client"
	"gantry/internal/wire"
)

func eventsCommand(a *App) *cobra.Command {
	var since, until, format string
	var filter opt.Filter
	cmd := leaf("events [OPTIONS]", "Get real time events from the server", noArgs, func(cmd *cobra.Command, _ []string) error {
		return followEvents(cmd.Context(), a, since, until, format, filter)
	})
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&until, "until", "", "Stream events until this timestamp")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&format, "format", "", inspectFormatUsage)
	return cmd
}

func followEvents(ctx context.Context, a *App, since, until, format string, filter opt.Filter) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var tmpl *template.Template
	if format == "json" {
		format = "{{json .}}"
	}
	if format != "" {
		if tmpl, err = formatter.Parse(format); err != nil {
			return &StatusError{Text: "Error parsing format: " + err.Error(), Code: 64}
		}
	}
	q := url.Values{}
	if err := setTimes(q, since, until); err != nil {
		return err
	}
	setFilters(q, filter)
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/events", Query: q})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return eachJSON(ctx, res.Body, func(e wire.Event) error { return printEvent(a, tmpl, e) })
}

func printEvent(a *App, tmpl *template.Template, e wire.Event) error {
	var b strings.Builder
	if tmpl != nil {
		if err := tmpl.Execute(&b, e); err != nil {
			return err
		}
	} else {
		eventText(&b, e)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(a.Out, b.String())
	return err
}

// eventText writes TIME TYPE ACTION ID (key=value, …).
func eventText(b *strings.Builder, e wire.Event) {
	const layout = "2006-01-02T15:04:05.000000000Z07:00"
	if e.TimeNano != 0 {
		b.WriteString(time.Unix(0, e.TimeNano).Format(layout) + " ")
	} else if e.Time != 0 {
		b.WriteString(time.Unix(e.Time, 0).Format(layout) + " ")
	}
	fmt.Fprintf(b, "%s %s %s", e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) == 0 {
		return
	}
	var attrs []string
	for k, v := range e.Actor.Attributes {
		attrs = append(attrs, k+"="+v)
	}
	sort.Strings(attrs)
	b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
}

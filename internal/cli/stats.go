package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/client"
	"gantry/internal/wire"
)

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string

	followAll bool // none was named: those that start are shown too
}

func statsCommand(a *App) *cobra.Command {
	var o statsOptions
	cmd := leaf("stats [OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", nil, func(cmd *cobra.Command, args []string) error {
		return showStats(cmd.Context(), a, args, &o)
	})
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	cmd.Flags().BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	cmd.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	cmd.Flags().StringVar(&o.format, "format", "", formatUsage)
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

// statsTable holds the newest sample of each container. Followers write it, the
// display reads it.
type statsTable struct {
	mu      sync.Mutex
	order   []string
	samples map[string]*formatter.Sample
}

func (t *statsTable) set(name string, s *formatter.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.samples[name]; !ok {
		t.order = append(t.order, name)
	}
	t.samples[name] = s
}

func (t *statsTable) drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.samples, name)
	for i, n := range t.order {
		if n == name {
			t.order = append(t.order[:i], t.order[i+1:]...)
			return
		}
	}
}

func (t *statsTable) rows() []*formatter.Sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*formatter.Sample, 0, len(t.order))
	for _, n := range t.order {
		out = append(out, t.samples[n])
	}
	return out
}

func showStats(ctx context.Context, a *App, names []string, o *statsOptions) error {
	if _, err := a.client(); err != nil {
		return err
	}
	t := &statsTable{samples: map[string]*formatter.Sample{}}
	format := listFormat(a, listFlags{format: o.format, key: "statsFormat"})
	if o.followAll = len(names) == 0; o.followAll {
		q := url.Values{}
		if o.all {
			q.Set("all", "1")
		}
		var list []wire.ContainerSummary
		if err := a.api.Get(ctx, "/containers/json", q, &list); err != nil {
			return err
		}
		for _, c := range list {
			names = append(names, c.ID)
		}
	}
	if o.noStream {
		return statsOnce(ctx, a, t, names, format, o)
	}
	return statsLive(ctx, a, t, names, format, o)
}

// statsOnce shows one sample of each container, all measured at the same time.
func statsOnce(ctx context.Context, a *App, t *statsTable, names []string, format string, o *statsOptions) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		t.set(n, &formatter.Sample{Container: n, Invalid: true})
		wg.Go(func() {
			var s wire.Stats
			if errs[i] = a.api.Get(ctx, containerPath(n, "stats"), url.Values{"stream": {"0"}}, &s); errs[i] == nil {
				t.set(n, formatter.NewSample(n, &s))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return formatter.StatsTable().Render(a.Out, format, formatter.Stats(t.rows(), formatter.RowOptions{Trunc: !o.noTrunc}))
}

// statsLive repaints the table every half second until ctx ends, or until no
// container is left that was asked for by name.
func statsLive(ctx context.Context, a *App, t *statsTable, names []string, format string, o *statsOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	follow := func(n string) {
		t.set(n, &formatter.Sample{Container: n, Invalid: true})
		wg.Go(func() {
			err := followStats(ctx, a, t, n)
			if err != nil && ctx.Err() == nil && !o.followAll {
				cancel(err)
			}
			if o.followAll && ctx.Err() == nil {
				t.drop(n)
			}
		})
	}
	for _, n := range names {
		follow(n)
	}
	if o.followAll {
		wg.Go(func() { followStarts(ctx, a, follow) })
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		var b strings.Builder
		if formatter.IsTable(format) && a.outIsTerminal() {
			b.WriteString("\x1b[2J\x1b[H")
		}
		if err := formatter.StatsTable().Render(&b, format, formatter.Stats(t.rows(), formatter.RowOptions{Trunc: !o.noTrunc})); err != nil {
			cancel(err)
			return err
		}
		if _, err := io.WriteString(a.Out, b.String()); err != nil {
			cancel(err)
			return err
		}
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errInterrupted) {
				return err
			}
			return nil // ctrl-c is how one leaves
		case <-tick.C:
		}
	}
}

// followStats keeps t up to date with one container until its stream ends.
func followStats(ctx context.Context, a *App, t *statsTable, name string) error {
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "stats"), Query: url.Values{"stream": {"1"}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	err = eachJSON(ctx, res.Body, func(s wire.Stats) error {
		t.set(name, formatter.NewSample(name, &s))
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading stats: %w", err)
	}
	return nil
}

// followStarts follows containers that start while stats runs.
func followStarts(ctx context.Context, a *App, follow func(string)) {
	q := url.Values{"filters": {`{"type":{"container":true},"event":{"start":true}}`}}
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/events", Query: q})
	if err != nil {
		return
	}
	defer res.Body.Close()
	_ = eachJSON(ctx, res.Body, func(e wire.Event) error { follow(e.Actor.ID); return nil })
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

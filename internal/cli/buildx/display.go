package buildx

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"

	"gantry/internal/cli/buildx/solve"
)

// displayMode reads --progress and -q. quiet says that the image ID is printed.
func displayMode(progress string, quiet bool) (mode progressui.DisplayMode, isQuiet bool, err error) {
	if v := os.Getenv("BUILDKIT_PROGRESS"); v != "" && progress == "auto" {
		progress = v
	}
	switch progress {
	case "quiet":
		return progressui.QuietMode, true, nil
	case "none":
		return progressui.QuietMode, quiet, nil
	case "auto", "", "plain", "rawjson", "tty":
	default:
		return "", false, fmt.Errorf("invalid progress mode %s", progress)
	}
	if quiet {
		if progress != "auto" && progress != "" {
			return "", false, fmt.Errorf("progress=%s and quiet cannot be used together", progress)
		}
		return progressui.QuietMode, true, nil
	}
	return progressui.DisplayMode(progress), false, nil
}

// job is one build of a run.
type job struct {
	name    string // of bake's target, "" for the only build
	req     solve.Request
	explain bool
	links   map[string]int // contexts that are results of other jobs
	result  solve.Result
}

// run is what a run of builds left.
type run struct {
	jobs     []job
	warnings []client.VertexWarning
}

// start runs the builds, shows their progress, and says afterwards what the
// checks warned of.
func (a *App) start(ctx context.Context, mode progressui.DisplayMode, jobs []job) (run, error) {
	c, err := a.buildkit(ctx)
	if err != nil {
		return run{}, err
	}
	desc := fmt.Sprintf("building with %q instance using docker driver", builderName)
	d, err := progressui.NewDisplay(a.Err, mode, progressui.WithDesc(desc, "docker:"+builderName))
	if err != nil {
		return run{}, err
	}
	all := make(chan *client.SolveStatus)
	out := run{jobs: jobs}
	// The display outlives a cancelled build: it shows how the build ended.
	shown := make(chan error, 1)
	go func() {
		w, err := d.UpdateFrom(context.WithoutCancel(ctx), all)
		out.warnings = w
		shown <- err
	}()
	notes := make([]*notebook, len(jobs))
	err = a.solveAll(ctx, c, jobs, notes, all)
	close(all)
	if e := <-shown; err == nil {
		err = e
	}
	printWarnings(a.Err, out.warnings, mode, a.global.Debug)
	for _, n := range notes {
		if n != nil {
			n.finish(a.Err, mode, err == nil)
		}
	}
	return out, frontendError(err)
}

// solveAll runs builds side by side. One whose result others need stays until
// they have ended.
func (a *App) solveAll(ctx context.Context, c *client.Client, jobs []job, notes []*notebook, all chan<- *client.SolveStatus) error {
	eg, ctx := errgroup.WithContext(ctx)
	in := &sharedInput{r: a.In}
	shares := newShares(jobs)
	for i := range jobs {
		notes[i] = newNotebook(jobs[i])
		eg.Go(func() error {
			defer shares.ended(jobs[i])
			j := &jobs[i]
			for name, k := range j.links {
				l, err := shares[k].get(ctx)
				if err != nil {
					return err
				}
				j.req.Links[name] = l
			}
			ch := make(chan *client.SolveStatus)
			piped := make(chan struct{})
			go func() {
				defer close(piped)
				for s := range ch {
					notes[i].status(s)
					all <- prefixed(s, j.name)
				}
			}()
			env := solve.Env{In: in, Out: a.Out, Proxy: a.config().ProxyEnv(a.target.Host), Auth: a.config(), Lookup: os.LookupEnv, Watch: notes[i].watch}
			switch {
			case shares[i] == nil:
			case j.req.Call.Name == "":
				env.Share = shares[i].give
			default: // nothing is built, and whoever only asks needs nothing of it
				if err := onlyAsked(jobs, i); err != nil {
					return err
				}
				shares[i].link <- solve.Nothing()
			}
			res, err := solve.Run(ctx, c, j.req, env, ch)
			<-piped
			j.result = res
			if err != nil && j.name != "" {
				err = fmt.Errorf("target %s: %w", j.name, err)
			}
			return err
		})
	}
	return eg.Wait()
}

// share is a build's result on its way to the builds that need it.
type share struct {
	link  chan *solve.Link
	users sync.WaitGroup
	got   *solve.Link
	once  sync.Mutex
}

type shares []*share

// newShares makes one for each job that another one needs.
func newShares(jobs []job) shares {
	out := make(shares, len(jobs))
	for i := range jobs {
		if len(jobs[i].links) > 0 && jobs[i].req.Links == nil {
			jobs[i].req.Links = map[string]*solve.Link{}
		}
		for _, k := range jobs[i].links {
			if out[k] == nil {
				out[k] = &share{link: make(chan *solve.Link, 1)}
			}
			out[k].users.Add(1)
		}
	}
	return out
}

// onlyAsked refuses a build that needs the result of job k, of which something is
// asked instead. Pure.
func onlyAsked(jobs []job, k int) error {
	for _, j := range jobs {
		for name, on := range j.links {
			if on == k && j.req.Call.Name == "" {
				return fmt.Errorf("target %s: its context %s is the result of target %s, which is not built: it has call=%s", j.name, name, jobs[k].name, jobs[k].req.Call.Name)
			}
		}
	}
	return nil
}

// ended lets the builds go whose results j has used.
func (s shares) ended(j job) {
	for _, k := range j.links {
		s[k].users.Done()
	}
}

// get waits for the result.
func (s *share) get(ctx context.Context) (*solve.Link, error) {
	s.once.Lock()
	defer s.once.Unlock()
	if s.got != nil {
		return s.got, nil
	}
	select {
	case s.got = <-s.link:
		return s.got, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// give hands the result over and waits until nobody needs it.
func (s *share) give(ctx context.Context, l *solve.Link) error {
	s.link <- l
	done := make(chan struct{})
	go func() {
		s.users.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sharedInput gives standard input to the first build that reads it.
type sharedInput struct {
	mu sync.Mutex
	r  io.Reader
}

func (s *sharedInput) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(p)
}

// prefixed puts a target's name in front of its steps.
func prefixed(s *client.SolveStatus, name string) *client.SolveStatus {
	if name == "" {
		return s
	}
	for _, v := range s.Vertexes {
		if len(v.Name) > 0 && v.Name[0] == '[' {
			v.Name = "[" + name + " " + v.Name[1:]
		} else {
			v.Name = "[" + name + "] " + v.Name
		}
	}
	return s
}

// printWarnings sums up what the build checks found.
func printWarnings(w io.Writer, list []client.VertexWarning, mode progressui.DisplayMode, debug bool) {
	if len(list) == 0 || mode == progressui.QuietMode || mode == progressui.RawJSONMode {
		return
	}
	text := fmt.Sprintf("%d warnings found", len(list))
	if len(list) == 1 {
		text = "1 warning found"
	}
	if !debug {
		text += " (use docker --debug to expand)"
	}
	fmt.Fprintf(w, "\n \x1b[33m%s:\n\x1b[0m", text)
	for _, n := range list {
		fmt.Fprintf(w, " - %s\n", n.Short)
		if !debug {
			continue
		}
		for _, d := range n.Detail {
			fmt.Fprintf(w, "%s\n", d)
		}
		if n.URL != "" {
			fmt.Fprintf(w, "More info: %s\n", n.URL)
		}
		if n.SourceInfo != nil && n.Range != nil {
			src := errdefs.Source{Info: n.SourceInfo, Ranges: n.Range}
			_ = src.Print(w) // a terminal: nothing can be done
		}
		fmt.Fprintln(w)
	}
}

// isOn reads a switch of the environment.
func isOn(name string) bool {
	v, err := strconv.ParseBool(os.Getenv(name))
	return err == nil && v
}

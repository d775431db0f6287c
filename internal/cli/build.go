package cli

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/copytar"
	"gantry/internal/cli/opt"
	"gantry/internal/cli/progress"
	"gantry/internal/client"
)

type buildOptions struct {
	file, target, network, platform, iidfile            string
	cgroupParent, cpusetCpus, cpusetMems, isolation     string
	tags, args, labels, hosts                           opt.List
	cacheFrom, securityOpt                              []string
	memory, shm                                         opt.Bytes
	swap                                                opt.SwapBytes
	shares, period, quota                               int64
	ulimits                                             opt.Ulimits
	noCache, rm, forceRm, pull, quiet, squash, compress bool
}

func buildCommand(a *App) *cobra.Command {
	var o buildOptions
	cmd := leaf("build [OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		return buildImage(cmd.Context(), a, args[0], &o)
	})
	fs := cmd.Flags()
	o.hosts.Check = opt.ExtraHost
	o.labels.Check = opt.Label
	o.args.Check = opt.Env(lookupEnv)
	fs.VarP(&o.tags, "tag", "t", `Name and optionally a tag in the "name:tag" format`)
	fs.Var(&o.args, "build-arg", "Set build-time variables")
	fs.Var(&o.ulimits, "ulimit", "Ulimit options")
	fs.StringVarP(&o.file, "file", "f", "", `Name of the Dockerfile (Default is "PATH/Dockerfile")`)
	fs.VarP(&o.memory, "memory", "m", "Memory limit")
	fs.Var(&o.swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Var(&o.shm, "shm-size", `Size of "/dev/shm"`)
	fs.Int64VarP(&o.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&o.period, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&o.quota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	fs.StringVar(&o.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	fs.StringVar(&o.isolation, "isolation", "", "Container isolation technology")
	fs.Var(&o.labels, "label", "Set metadata for an image")
	fs.BoolVar(&o.noCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&o.rm, "rm", true, "Remove intermediate containers after a successful build")
	fs.BoolVar(&o.forceRm, "force-rm", false, "Always remove intermediate containers")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.BoolVar(&o.pull, "pull", false, "Always attempt to pull a newer version of the image")
	fs.StringSliceVar(&o.cacheFrom, "cache-from", nil, "Images to consider as cache sources")
	fs.BoolVar(&o.compress, "compress", false, "Compress the build context using gzip")
	fs.StringSliceVar(&o.securityOpt, "security-opt", nil, "Security options")
	fs.StringVar(&o.network, "network", "default", "Set the networking mode for the RUN instructions during build")
	fs.Var(&o.hosts, "add-host", `Add a custom host-to-IP mapping ("host:ip")`)
	fs.StringVar(&o.target, "target", "", "Set the target build stage to build.")
	fs.StringVar(&o.iidfile, "iidfile", "", "Write the image ID to the file")
	fs.StringVar(&o.platform, "platform", lookupOr("DOCKER_DEFAULT_PLATFORM", ""), "Set platform if server is multi-platform capable")
	fs.BoolVar(&o.squash, "squash", false, "Squash newly built layers into a single new layer")
	contentTrustFlag(cmd)
	return cmd
}

// query puts the flags in the API's words.
func (o *buildOptions) query() (url.Values, error) {
	q := url.Values{"t": o.tags.Values, "networkmode": {o.network}, "version": {"1"}, "rm": {"0"}}
	for k, on := range map[string]bool{"nocache": o.noCache, "rm": o.rm, "forcerm": o.forceRm, "pull": o.pull, "q": o.quiet, "squash": o.squash} {
		if on {
			q.Set(k, "1")
		}
	}
	for k, s := range map[string]string{"target": o.target, "platform": o.platform, "cgroupparent": o.cgroupParent, "cpusetcpus": o.cpusetCpus, "cpusetmems": o.cpusetMems} {
		if s != "" {
			q.Set(k, s)
		}
	}
	for k, n := range map[string]int64{"memory": int64(o.memory), "memswap": int64(o.swap), "shmsize": int64(o.shm), "cpushares": o.shares, "cpuperiod": o.period, "cpuquota": o.quota} {
		if n != 0 {
			q.Set(k, strconv.FormatInt(n, 10))
		}
	}
	args := map[string]*string{}
	for _, l := range o.args.Values {
		k, v, has := strings.Cut(l, "=")
		if args[k] = nil; has {
			args[k] = &v
		}
	}
	for k, v := range map[string]any{"buildargs": args, "labels": opt.ToMap(o.labels.Values), "cachefrom": o.cacheFrom, "ulimits": o.ulimits} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		q.Set(k, string(b))
	}
	if len(o.hosts.Values) > 0 {
		q["extrahosts"] = o.hosts.Values
	}
	if len(o.securityOpt) > 0 {
		q["securityopt"] = o.securityOpt
	}
	return q, nil
}

func buildImage(ctx context.Context, a *App, source string, o *buildOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q, err := o.query()
	if err != nil {
		return err
	}
	body, err := openContext(a, source, o, q)
	if err != nil {
		return fmt.Errorf("unable to prepare context: %w", err)
	}
	header, err := registryConfig(a)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodPost, Path: "/build", Query: q, Header: header}
	header.Set("Content-Type", "application/x-tar")
	if body != nil {
		defer body.Close()
		r.Body = body
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return showBuild(ctx, a, res.Body, o)
}

// showBuild shows the daemon's messages; with -q only the id stays.
func showBuild(ctx context.Context, a *App, r io.Reader, o *buildOptions) error {
	id := ""
	out := a.Out
	var kept strings.Builder
	if o.quiet {
		out = &kept
	}
	err := progress.Show(out, r, func(m progress.Message) {
		var aux struct{ ID string }
		if json.Unmarshal(m.Aux, &aux) == nil && aux.ID != "" {
			id = aux.ID
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		if o.quiet {
			fmt.Fprint(a.Err, kept.String())
		}
		var e *progress.Error
		if errors.As(err, &e) && e.Code != 0 {
			return &StatusError{Text: e.Message, Code: e.Code}
		}
		return err
	}
	if o.quiet {
		if id == "" {
			id = strings.TrimSpace(kept.String())
		}
		fmt.Fprintln(a.Out, id)
	}
	if o.iidfile != "" {
		return os.WriteFile(o.iidfile, []byte(id), 0o666)
	}
	return nil
}

// buildContext returns the tar to send; nil if the daemon fetches it itself.
func openContext(a *App, source string, o *buildOptions, q url.Values) (io.ReadCloser, error) {
	for _, p := range []string{"http://", "https://", "git://", "github.com/", "git@"} {
		if strings.HasPrefix(source, p) {
			q.Set("remote", source)
			q.Set("dockerfile", o.file)
			return nil, nil
		}
	}
	if source == "-" {
		return stdinContext(a, o, q)
	}
	fi, err := os.Stat(source)
	if err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("path %q not found", source)
	}
	dockerfile, err := contextDockerfile(source, o.file)
	if err != nil {
		return nil, err
	}
	q.Set("dockerfile", dockerfile)
	skip, err := ignored(source, dockerfile)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := copytar.Add(tw, source, ".", copytar.AddOptions{Skip: skip})
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r, nil
}

// contextDockerfile returns the Dockerfile's path inside the context.
func contextDockerfile(dir, file string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	p := filepath.Join(root, "Dockerfile")
	if file != "" {
		if p, err = filepath.Abs(file); err != nil {
			return "", err
		}
	}
	if _, err := os.Lstat(p); err != nil {
		return "", fmt.Errorf("unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	rel, err := filepath.Rel(root, p)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("the Dockerfile (%s) must be within the build context", file)
	}
	return filepath.ToSlash(rel), nil
}

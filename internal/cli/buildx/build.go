package buildx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/buildx/solve"
	"gantry/internal/cli/opt"
)

// common are the flags that build and bake share.
type common struct {
	metadataFile, progress, provenance, sbom, call string
	noCache, pull, push, load, check, explain      bool
}

func (o *common) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.metadataFile, "metadata-file", "", "Write build result metadata to a file")
	fs.StringVar(&o.progress, "progress", "auto", `Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty"). Use plain to show container output`)
	fs.BoolVar(&o.noCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&o.pull, "pull", false, "Always attempt to pull all referenced images")
	fs.BoolVar(&o.push, "push", false, `Shorthand for "--output=type=registry,unpack=false"`)
	fs.BoolVar(&o.load, "load", false, `Shorthand for "--output=type=docker"`)
	fs.StringVar(&o.provenance, "provenance", "", `Shorthand for "--attest=type=provenance"`)
	fs.StringVar(&o.sbom, "sbom", "", `Shorthand for "--attest=type=sbom"`)
	fs.StringVar(&o.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
	fs.BoolVar(&o.check, "check", false, `Shorthand for "--call=check"`)
	fs.BoolVar(&o.explain, "explain", false, "Say of each step that was not cached why, and which directories of the context are the largest")
}

// method is the frontend's call that the flags ask for.
func (o *common) method() (grammar.Call, error) {
	if o.check {
		return grammar.ParseCall("check")
	}
	return grammar.ParseCall(o.call)
}

// buildOptions are the flags of build.
type buildOptions struct {
	common
	file, target, network, iidfile, cgroupParent              string
	hosts, allow, annotations, args, attests, contexts        []string
	cacheFrom, cacheTo, labels, noCacheFilter, outputs        []string
	platforms, secrets, ssh, tags, resources, policy, ignored []string
	ulimits                                                   opt.Ulimits
	shm, memory                                               opt.Bytes
	swap                                                      opt.SwapBytes
	shares, period, quota                                     int64
	cpus, mems                                                string
	quiet, squash, dropped                                    bool
}

func buildCommand(a *App) *cobra.Command {
	o := &buildOptions{}
	cmd := leaf("build [OPTIONS] PATH | URL | -", "Start a build", exactly(1), func(cmd *cobra.Command, args []string) error {
		return a.build(cmd.Context(), args[0], o)
	})
	cmd.Aliases = []string{"b"}
	cmd.Annotations = map[string]string{"aliases": "gantry build, gantry builder build, gantry image build, gantry buildx b"}
	fs := cmd.Flags()
	o.add(fs)
	fs.StringSliceVar(&o.hosts, "add-host", nil, `Add a custom host-to-IP mapping (format: "host:ip")`)
	fs.StringArrayVar(&o.allow, "allow", nil, `Allow extra privileged entitlement (e.g., "network.host", "security.insecure", "device", "buildx.local.delete")`)
	fs.StringArrayVar(&o.annotations, "annotation", nil, "Add annotation to the image")
	fs.StringArrayVar(&o.attests, "attest", nil, `Attestation parameters (format: "type=sbom,generator=image")`)
	fs.StringArrayVar(&o.args, "build-arg", nil, "Set build-time variables")
	fs.StringArrayVar(&o.contexts, "build-context", nil, "Additional build contexts (e.g., name=path)")
	fs.StringArrayVar(&o.cacheFrom, "cache-from", nil, `External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")`)
	fs.StringArrayVar(&o.cacheTo, "cache-to", nil, `Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")`)
	fs.StringVar(&o.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	fs.StringVarP(&o.file, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	fs.StringVar(&o.iidfile, "iidfile", "", "Write the image ID to a file")
	fs.StringArrayVar(&o.labels, "label", nil, "Set metadata for an image")
	fs.StringVar(&o.network, "network", "default", `Set the networking mode for the "RUN" instructions during build`)
	fs.StringArrayVar(&o.noCacheFilter, "no-cache-filter", nil, "Do not cache specified stages")
	fs.StringArrayVarP(&o.outputs, "output", "o", nil, `Output destination (format: "type=local,dest=path")`)
	var platforms []string
	if v := os.Getenv("DOCKER_DEFAULT_PLATFORM"); v != "" {
		platforms = []string{v}
	}
	fs.StringArrayVar(&o.platforms, "platform", platforms, "Set target platform for build")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.StringArrayVar(&o.resources, "resource", nil, `Resource limits for build containers (format: "memory=2g", "cpu-quota=50000")`)
	fs.StringArrayVar(&o.secrets, "secret", nil, `Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")`)
	fs.Var(&o.shm, "shm-size", "Shared memory size for build containers")
	fs.BoolVar(&o.squash, "squash", false, "Squash newly built layers into a single new layer")
	fs.StringArrayVar(&o.ssh, "ssh", nil, `SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	fs.StringArrayVarP(&o.tags, "tag", "t", nil, `Image identifier (format: "[registry/]repository[:tag]")`)
	fs.StringVar(&o.target, "target", "", "Set the target build stage to build")
	fs.Var(&o.ulimits, "ulimit", "Ulimit options")
	o.addLegacy(fs)
	return cmd
}

// addLegacy adds the flags of the classic builder, which are not shown.
func (o *buildOptions) addLegacy(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.policy, "policy", nil, "Policy configuration")
	fs.StringVar(&o.call, "print", "", "Print result of information request (e.g., outline, targets)")
	fs.VarP(&o.memory, "memory", "m", "Memory limit")
	fs.Var(&o.swap, "memory-swap", `Swap limit equal to memory plus swap: "-1" to enable unlimited swap`)
	fs.Int64VarP(&o.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&o.period, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&o.quota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	fs.StringVar(&o.cpus, "cpuset-cpus", "", `CPUs in which to allow execution ("0-3", "0,1")`)
	fs.StringVar(&o.mems, "cpuset-mems", "", `MEMs in which to allow execution ("0-3", "0,1")`)
	fs.StringArrayVar(&o.ignored, "security-opt", nil, "Security options")
	fs.StringArrayVar(&o.ignored, "isolation", nil, "Container isolation technology")
	for _, b := range []string{"compress", "rm", "force-rm", "disable-content-trust"} {
		fs.BoolVar(&o.dropped, b, b == "rm" || b == "disable-content-trust", "")
	}
	for _, n := range []string{"policy", "print", "memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems", "security-opt", "isolation", "compress", "rm", "force-rm", "disable-content-trust"} {
		fs.Lookup(n).Hidden = true
	}
}

// request turns the flags into a build.
func (o *buildOptions) request(source string) (solve.Request, error) {
	r := solve.Request{
		Context: source, Dockerfile: o.file, Tags: o.tags, Platforms: o.platforms, Hosts: o.hosts, Allow: o.allow, Annotations: o.annotations,
		NoCacheFilter: o.noCacheFilter, Target: o.target, Network: o.network, CgroupParent: o.cgroupParent, ShmSize: int64(o.shm),
		NoCache: o.noCache, Pull: o.pull, Push: o.push, Load: o.load,
		Attests: attests(o.attests, o.provenance, o.sbom),
	}
	if o.squash {
		return r, errors.New("--squash is of the classic builder: DOCKER_BUILDKIT=0 gantry build --squash")
	}
	if len(o.policy) > 0 {
		return r, errors.New("--policy is not supported: use a source policy file (EXPERIMENTAL_BUILDKIT_SOURCE_POLICY) with docker buildx")
	}
	var err error
	if r.Call, err = o.method(); err != nil {
		return r, err
	}
	if r.Args, err = grammar.KeyValues(o.args, os.LookupEnv); err != nil {
		return r, err
	}
	if r.Labels, err = grammar.KeyValues(o.labels, nil); err != nil {
		return r, err
	}
	if r.Contexts, err = contexts(o.contexts); err != nil {
		return r, err
	}
	for _, u := range o.ulimits {
		r.Ulimits = append(r.Ulimits, u.String())
	}
	if r.Resources, err = o.limits(); err != nil {
		return r, err
	}
	if err := lists(&r, o.outputs, o.cacheFrom, o.cacheTo, o.secrets, o.ssh); err != nil {
		return r, err
	}
	for _, e := range r.Outputs {
		if (e.Type == "local" || e.Type == "tar") && o.iidfile != "" {
			return r, errors.New("local and tar exporters are incompatible with image ID file")
		}
	}
	return r, nil
}

// attests puts --provenance and --sbom behind --attest: they win.
func attests(list []string, provenance, sbom string) []string {
	out := list[:len(list):len(list)]
	for _, s := range []string{grammar.ShortAttest("provenance", provenance), grammar.ShortAttest("sbom", sbom)} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// lists reads the flags that have a grammar of their own.
func lists(r *solve.Request, outputs, cacheFrom, cacheTo, secrets, ssh []string) error {
	for _, x := range []struct {
		in    []string
		parse func(string) (grammar.Entry, error)
		out   *[]grammar.Entry
	}{{outputs, grammar.Output, &r.Outputs}, {cacheFrom, grammar.Cache, &r.CacheFrom}, {cacheTo, grammar.Cache, &r.CacheTo}} {
		for _, s := range x.in {
			if s == "" {
				continue
			}
			e, err := x.parse(s)
			if err != nil {
				return err
			}
			*x.out = append(*x.out, e)
		}
	}
	for _, s := range secrets {
		v, err := grammar.ParseSecret(s)
		if err != nil {
			return err
		}
		r.Secrets = append(r.Secrets, v)
	}
	for _, s := range ssh {
		r.SSH = append(r.SSH, grammar.ParseSSH(s))
	}
	return nil
}

// contexts reads --build-context.
func contexts(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		if s == "" {
			continue
		}
		name, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid context value: %s, expected key=value", s)
		}
		n, err := solve.ContextName(name)
		if err != nil {
			return nil, err
		}
		out[n] = v
	}
	return out, nil
}

// limits gathers --resource and the classic flags as the frontend's attributes.
func (o *buildOptions) limits() (map[string]string, error) {
	out := map[string]string{}
	for attr, n := range map[string]int64{"memory": int64(o.memory), "memswap": int64(o.swap), "cpushares": o.shares, "cpuperiod": o.period, "cpuquota": o.quota} {
		if n != 0 {
			out[attr] = fmt.Sprint(n)
		}
	}
	for attr, s := range map[string]string{"cpusetcpus": o.cpus, "cpusetmems": o.mems} {
		if s != "" {
			out[attr] = s
		}
	}
	names := map[string]string{"memory": "memory", "memory-swap": "memswap", "cpu-shares": "cpushares", "cpu-period": "cpuperiod", "cpu-quota": "cpuquota", "cpuset-cpus": "cpusetcpus", "cpuset-mems": "cpusetmems"}
	for _, s := range o.resources {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid resource %q, expected key=value", s)
		}
		attr, known := names[k]
		if !known {
			return nil, fmt.Errorf("unknown resource %q", k)
		}
		if strings.HasPrefix(k, "memory") && v != "-1" {
			n, err := units.RAMInBytes(v)
			if err != nil {
				return nil, fmt.Errorf("invalid value %q for resource %s: %w", v, k, err)
			}
			v = fmt.Sprint(n)
		}
		out[attr] = v
	}
	return out, nil
}

// build runs the command.
func (a *App) build(ctx context.Context, source string, o *buildOptions) error {
	r, err := o.request(source)
	if err != nil {
		return err
	}
	// An ID file of before must not outlive a build that fails.
	if o.iidfile != "" {
		if err := os.Remove(o.iidfile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing image ID file: %w", err)
		}
	}
	mode, quiet, err := displayMode(o.progress, o.quiet)
	if err != nil {
		return err
	}
	run, err := a.start(ctx, mode, []job{{req: r, explain: o.explain}})
	if err != nil {
		return fmt.Errorf("failed to build: %w", err)
	}
	res := run.jobs[0].result
	if quiet && r.Call.Name == "" {
		fmt.Fprintln(a.Out, res.ID())
	}
	if o.iidfile != "" {
		if err := os.WriteFile(o.iidfile, []byte(res.ID()), 0o644); err != nil {
			return fmt.Errorf("writing image ID file: %w", err)
		}
	}
	if o.metadataFile != "" {
		m := metadata(res.Response)
		if len(run.warnings) > 0 && r.Call.Name == "" && isOn("BUILDX_METADATA_WARNINGS") {
			m["buildx.build.warnings"] = run.warnings
		}
		if err := writeMetadata(o.metadataFile, m); err != nil {
			return err
		}
	}
	if r.Call.Name != "" {
		return a.printCall(r.Call, res)
	}
	if s, ok := res.Response["frontend.result.inlinemessage"]; ok {
		fmt.Fprintf(a.Out, "\n%s\n", s)
	}
	return nil
}

package buildx

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/cli/buildx/bake"
	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/buildx/solve"
	"gantry/internal/cli/opt"
)

func word(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// values drops what was set to nothing.
func values(m map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

// bakeRequest turns a target into a build.
func bakeRequest(t *bake.Target) (solve.Request, error) {
	r := solve.Request{
		Context: strings.TrimPrefix(word(t.Context), "cwd://"), Dockerfile: strings.TrimPrefix(word(t.Dockerfile), "cwd://"), Inline: word(t.DockerfileInline),
		Args: values(t.Args), Labels: values(t.Labels), Tags: t.Tags, Platforms: t.Platforms, Annotations: t.Annotations, NoCacheFilter: t.NoCacheFilter,
		Target: word(t.Target), Network: word(t.Network), Attests: t.Attest, Contexts: map[string]string{},
		NoCache: t.NoCache != nil && *t.NoCache, Pull: t.Pull != nil && *t.Pull, Allow: t.Entitlements,
	}
	if r.Context == "-" {
		return r, errors.New("context from stdin not allowed in bake")
	}
	if r.Dockerfile == "-" {
		return r, errors.New("dockerfile from stdin not allowed in bake")
	}
	if r.Context == "" {
		r.Context = "."
	}
	// A Dockerfile is found from its context, not from here.
	if !strings.HasPrefix(word(t.Dockerfile), "cwd://") && !grammar.IsURL(r.Context) && !grammar.IsURL(r.Dockerfile) && !filepath.IsAbs(r.Dockerfile) {
		r.Dockerfile = filepath.Join(r.Context, r.Dockerfile)
	}
	for name, v := range t.Contexts {
		n, err := solve.ContextName(name)
		if err != nil {
			return r, err
		}
		r.Contexts[n] = strings.TrimPrefix(v, "cwd://")
	}
	for _, h := range slices.Sorted(maps.Keys(t.ExtraHosts)) {
		if v := t.ExtraHosts[h]; v != nil {
			r.Hosts = append(r.Hosts, h+"="+*v)
		}
	}
	var err error
	if r.ShmSize, err = shmBytes(t.ShmSize); err != nil {
		return r, err
	}
	var limits opt.Ulimits
	for _, u := range t.Ulimits {
		if err := limits.Set(u); err != nil {
			return r, err
		}
	}
	for _, u := range limits {
		r.Ulimits = append(r.Ulimits, u.String())
	}
	if r.Call, err = grammar.ParseCall(word(t.Call)); err != nil {
		return r, err
	}
	return r, lists(&r, t.Outputs, t.CacheFrom, t.CacheTo, t.Secrets, t.SSH)
}

// privileges are what a definition wants beyond the current directory.
type privileges struct{ read, write, daemon []string }

// needs returns what a build of a definition reads and writes here, and what it
// asks the daemon to grant.
func needs(r solve.Request) privileges {
	p := privileges{daemon: slices.Clone(r.Allow)}
	if !grammar.IsURL(r.Context) {
		p.read = append(p.read, r.Context)
		if r.Inline == "" && !grammar.IsURL(r.Dockerfile) {
			p.read = append(p.read, r.Dockerfile)
		}
	}
	for _, v := range r.Contexts {
		if !grammar.IsURL(v) && !strings.HasPrefix(v, "target:") && !strings.HasPrefix(v, "docker-image://") {
			p.read = append(p.read, strings.TrimPrefix(v, "oci-layout://"))
		}
	}
	for _, s := range r.Secrets {
		if s.Path != "" {
			p.read = append(p.read, s.Path)
		}
	}
	for _, s := range r.SSH {
		p.read = append(p.read, s.Paths...)
	}
	for _, e := range r.CacheFrom {
		if e.Type == "local" {
			p.read = append(p.read, e.Attrs["src"])
		}
	}
	for _, e := range append(slices.Clone(r.Outputs), r.CacheTo...) {
		if d := e.Attrs["dest"]; d != "" && d != "-" {
			p.write = append(p.write, d)
		}
	}
	return p
}

// checkAllowed refuses what --allow does not grant: files outside the current
// directory, and privileges of the daemon. A definition may come from others.
func checkAllowed(list []privileges, allow []string) error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	granted := map[string][]string{"read": {wd}, "write": {wd}}
	for _, a := range allow {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "fs":
			granted["read"], granted["write"] = append(granted["read"], v), append(granted["write"], v)
		case "fs.read":
			granted["read"] = append(granted["read"], v)
		case "fs.write":
			granted["write"] = append(granted["write"], v)
		}
	}
	var missing []string
	for _, p := range list {
		for _, e := range p.daemon {
			if !slices.Contains(allow, e) {
				missing = append(missing, e)
			}
		}
		if os.Getenv("BUILDX_BAKE_ENTITLEMENTS_FS") == "0" {
			continue
		}
		for kind, paths := range map[string][]string{"read": p.read, "write": p.write} {
			for _, x := range paths {
				if !below(x, granted[kind]) {
					missing = append(missing, "fs."+kind+"="+x)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	return fmt.Errorf("additional privileges requested: the definition needs what is not allowed; add %s", "--allow "+strings.Join(missing, " --allow "))
}

// below reports whether a path, its links followed, is in one of dirs.
func below(p string, dirs []string) bool {
	abs := resolved(p)
	for _, d := range dirs {
		if d == "*" {
			return true
		}
		rel, err := filepath.Rel(resolved(d), abs)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// resolved follows the links of the part of p that exists.
func resolved(p string) string {
	abs, err := filepath.Abs(p)
	if err != nil {
		return p
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return abs
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

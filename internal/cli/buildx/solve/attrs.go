package solve

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/platforms"

	"gantry/internal/cli/buildx/grammar"
)

// isTrue reads a boolean argument; what is none is false.
func isTrue(s string) bool {
	v, err := strconv.ParseBool(s)
	return err == nil && v
}

// Attributes returns what the request means for the frontend, apart from its
// contexts. gateway gives the address that host-gateway stands for.
func Attributes(r Request, env Env, gateway func() (string, error)) (map[string]string, error) {
	if r.NoCache && len(r.NoCacheFilter) > 0 {
		return nil, errors.New("--no-cache and --no-cache-filter cannot currently be used together")
	}
	out := map[string]string{"image-resolve-mode": "local"}
	if r.Pull {
		out["image-resolve-mode"] = "pull"
	}
	for k, v := range r.Resources {
		out[k] = v
	}
	for k, v := range map[string]string{"cgroup-parent": r.CgroupParent, "target": r.Target, "no-cache": strings.Join(r.NoCacheFilter, ","), "ulimit": strings.Join(r.Ulimits, ",")} {
		if v != "" {
			out[k] = v
		}
	}
	if r.NoCache {
		out["no-cache"] = ""
	}
	if r.ShmSize > 0 {
		out["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	for _, f := range []func() error{
		func() error { return argAttrs(r, env, out) },
		func() error { return attestAttrs(r, env, out) },
		func() error { return platformAttrs(r, out) },
		func() error { return networkAttrs(r, gateway, out) },
	} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// argAttrs sets build arguments, the proxy's among them, and labels.
func argAttrs(r Request, env Env, out map[string]string) error {
	for k, v := range env.Proxy {
		out["build-arg:"+k] = v
	}
	for k := range r.Args { // a given argument wins in any case of its letters
		for p := range env.Proxy {
			if strings.EqualFold(k, p) {
				delete(out, "build-arg:"+p)
			}
		}
	}
	if env.Lookup != nil {
		if v, ok := env.Lookup("SOURCE_DATE_EPOCH"); ok && v != "" {
			out["build-arg:SOURCE_DATE_EPOCH"] = v
		}
	}
	for k, v := range r.Args {
		out["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		out["label:"+k] = v
	}
	if v, ok := r.Args["BUILDKIT_SYNTAX"]; ok {
		line := strings.TrimSpace(v)
		if line == "" {
			return errors.New("empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior")
		}
		image, _, _ := strings.Cut(line, " ")
		if image != "dockerfile.v0" {
			out["source"], out["cmdline"] = image, v
		}
	}
	if isTrue(r.Args["BUILDKIT_MULTI_PLATFORM"]) {
		out["multi-platform"] = "true"
	}
	return nil
}

// attestAttrs sets attestations; the least provenance is made unless it was
// refused. The last of two of a kind wins.
func attestAttrs(r Request, env Env, out map[string]string) error {
	seen := map[string]bool{}
	for _, s := range r.Attests {
		e, disabled, err := grammar.Attest(s)
		if err != nil {
			return err
		}
		seen[e.Type] = true
		key := "attest:" + e.Type
		if delete(out, key); disabled {
			continue
		}
		out[key] = grammar.Entry{Attrs: e.Attrs}.String()
	}
	if seen["provenance"] || r.Call.Name != "" {
		return nil
	}
	if env.Lookup != nil {
		if v, ok := env.Lookup("BUILDX_NO_DEFAULT_ATTESTATIONS"); ok {
			off, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("invalid BUILDX_NO_DEFAULT_ATTESTATIONS: %w", err)
			}
			if off {
				return nil
			}
		}
	}
	out["attest:provenance"] = "mode=min,inline-only=true"
	return nil
}

func platformAttrs(r Request, out map[string]string) error {
	var list []string
	for _, s := range grammar.Platforms(r.Platforms) {
		if strings.EqualFold(s, "local") {
			list = append(list, platforms.FormatAll(platforms.DefaultSpec()))
			continue
		}
		p, err := platforms.Parse(s)
		if err != nil {
			return err
		}
		list = append(list, platforms.FormatAll(platforms.Normalize(p)))
	}
	if len(list) > 0 {
		out["platform"] = strings.Join(list, ",")
	}
	return nil
}

func networkAttrs(r Request, gateway func() (string, error), out map[string]string) error {
	switch r.Network {
	case "", "default":
	case "host", "none":
		out["force-network-mode"] = r.Network
	default:
		return fmt.Errorf("network mode %q not supported by buildkit: use default, none or host", r.Network)
	}
	hosts, err := grammar.Hosts(r.Hosts, gateway)
	if err != nil {
		return err
	}
	if hosts != "" {
		out["add-hosts"] = hosts
	}
	return nil
}

package classic

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/platforms"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Names under which the frontend asks the session for directories.
const (
	contextDir    = "context"
	dockerfileDir = "dockerfile"
)

// attrs says a request in the words of the Dockerfile frontend, as far as it
// has words for it. Formats: BuildKit, docs/reference/dockerfile.
func attrs(r *wire.BuildRequest) (map[string]string, error) {
	a := map[string]string{"image-resolve-mode": "local"}
	set := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			a[key] = strconv.FormatInt(n, 10)
		}
	}
	set("filename", r.Dockerfile)
	set("target", r.Target)
	set("cgroup-parent", r.CgroupParent)
	set("cpusetcpus", r.CPUSetCPUs)
	set("cpusetmems", r.CPUSetMems)
	number("memory", r.Memory)
	number("memswap", r.MemorySwap)
	number("cpushares", r.CPUShares)
	number("cpuperiod", r.CPUPeriod)
	number("cpuquota", r.CPUQuota)
	number("shm-size", r.ShmSize)
	if r.Platform != "" {
		p, err := platforms.Parse(r.Platform)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		a["platform"] = platforms.FormatAll(platforms.Normalize(p))
	}
	if r.Pull {
		a["image-resolve-mode"] = "pull"
	}
	if r.NoCache {
		a["no-cache"] = ""
	}
	for k, v := range r.Args {
		if v != nil {
			a["build-arg:"+k] = *v
		}
	}
	for k, v := range r.Labels {
		a["label:"+k] = v
	}
	set("cache-from", strings.Join(r.CacheFrom, ","))
	hosts, err := addHosts(r.ExtraHosts)
	if err != nil {
		return nil, err
	}
	set("add-hosts", hosts)
	limits := make([]string, len(r.Ulimits))
	for i, u := range r.Ulimits {
		limits[i] = fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard)
	}
	set("ulimit", strings.Join(limits, ","))
	mode, _, err := network(r)
	set("force-network-mode", mode)
	return a, err
}

// network is the mode of the networks that steps get, and the name of one that
// the frontend has no word for.
func network(r *wire.BuildRequest) (mode, named string, err error) {
	switch r.Network {
	case "", "default", "bridge":
		return "", "", nil
	case "host", "none":
		return r.Network, "", nil
	}
	if r.BuildKit { // which has these alone
		return "", "", errs.New(errs.Invalid, "network mode %q not supported by buildkit", r.Network)
	}
	return "", r.Network, nil
}

// onNetwork puts the steps on a network of the daemon, until done is called.
func (j *job) onNetwork(ctx context.Context) (done func(), err error) {
	_, name, err := network(j.r)
	if err != nil || name == "" {
		return func() {}, err
	}
	entry, done, err := j.b.Network(ctx, name)
	if err != nil {
		return nil, err
	}
	j.attrs["add-hosts"] = strings.TrimPrefix(j.attrs["add-hosts"]+","+entry, ",")
	return done, nil
}

// addHosts turns "name:address" into "name=address", both in a list of commas.
func addHosts(list []string) (string, error) {
	out := make([]string, 0, len(list))
	for _, h := range list {
		name, addr, ok := strings.Cut(h, ":")
		if n, a, eq := strings.Cut(h, "="); eq && (!ok || len(n) < len(name)) {
			name, addr, ok = n, a, true
		}
		if !ok || name == "" || addr == "" {
			return "", errs.New(errs.Invalid, "bad format for add-host: %q", h)
		}
		out = append(out, name+"="+strings.Trim(addr, "[]"))
	}
	return strings.Join(out, ","), nil
}

package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/platforms"

	"gantry/internal/errs"
	"gantry/internal/server/policy"
	"gantry/internal/wire"
)

// Builds makes images of contexts and Dockerfiles.
type Builds interface {
	// Build tells the lines of the answer, but for an error that ends it. What
	// is wrong with the request is found before the first line.
	Build(ctx context.Context, r wire.BuildRequest, body io.Reader, tell func(wire.BuildMessage) error) error
}

// builds answers for /build.
type builds struct{ builds Builds }

func buildRoutes(b Builds) []route {
	return []route{{method: "POST", pattern: "/build", serve: (&builds{b}).build}}
}

// build reads a context and answers with what is done with it. A client that
// goes away ends the build.
func (s *builds) build(w http.ResponseWriter, r *request) error {
	req, err := r.build()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p := &progress{w: w}
	fullDuplex(w)
	err = s.builds.Build(ctx, req, r.Body, func(m wire.BuildMessage) error {
		p.send(m)
		return p.err
	})
	if err == nil {
		p.begin()
		return nil
	}
	if !p.began && !streamed(err) {
		return err
	}
	detail := &wire.BuildError{Message: err.Error()}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		detail.Code = coded.ExitCode()
	}
	p.send(wire.BuildMessage{Error: err.Error(), Detail: detail})
	return nil
}

// streamed says whether an error belongs into the stream even if nothing has
// been told: a quiet build says nothing before.
func streamed(err error) bool {
	var coded interface{ ExitCode() int }
	return errors.As(err, &coded)
}

// build reads the query of POST /build.
func (r *request) build() (wire.BuildRequest, error) {
	q := r.query
	b := wire.BuildRequest{
		Tags: q["t"], Dockerfile: q.Get("dockerfile"), Remote: q.Get("remote"), Target: q.Get("target"), ExtraHosts: extraHosts(q["extrahosts"]),
		Network: q.Get("networkmode"), Quiet: r.flag("q"), NoCache: r.flag("nocache"), Pull: r.flag("pull"), Squash: r.flag("squash"),
		CPUSetCPUs: q.Get("cpusetcpus"), CPUSetMems: q.Get("cpusetmems"), CgroupParent: q.Get("cgroupparent"), SecurityOpt: q["securityopt"],
		ID: q.Get("buildid"), Session: q.Get("session"),
	}
	b.KeepContainers = q.Get("rm") != "" && !r.flag("rm") && !r.flag("forcerm")
	for key, n := range map[string]*int64{
		"memory": &b.Memory, "memswap": &b.MemorySwap, "shmsize": &b.ShmSize, "cpushares": &b.CPUShares, "cpuperiod": &b.CPUPeriod, "cpuquota": &b.CPUQuota,
	} {
		*n = number64(q.Get(key))
	}
	if err := r.builder(&b); err != nil {
		return b, err
	}
	for _, f := range []struct {
		key, what string
		into      any
	}{
		{"ulimits", "ulimit settings", &b.Ulimits}, {"buildargs", "build args", &b.Args}, {"labels", "labels", &b.Labels}, {"cachefrom", "cache-from", &b.CacheFrom},
	} {
		if text := q.Get(f.key); text != "" {
			if err := json.Unmarshal([]byte(text), f.into); err != nil {
				return b, errs.New(errs.Invalid, "error reading %s: %w", f.what, err)
			}
		}
	}
	if r.v >= 1040 && q.Get("outputs") != "" {
		if err := json.Unmarshal([]byte(q.Get("outputs")), &b.Outputs); err != nil {
			return b, errs.New(errs.Invalid, "%w", err)
		}
	}
	b.Auth = registryConfig(r.Header.Get("X-Registry-Config"))
	return b, nil
}

// builder reads what chooses the builder, and the machine that it builds for.
func (r *request) builder(b *wire.BuildRequest) error {
	switch v := r.query.Get("version"); v {
	case "", "1":
	case "2":
		b.BuildKit = true
	default:
		return errs.New(errs.Invalid, "invalid version %q", v)
	}
	if len(b.SecurityOpt) > 0 {
		return errs.New(errs.Invalid, "The daemon on this platform does not support setting security options on build")
	}
	switch i := r.query.Get("isolation"); strings.ToLower(i) {
	case "", "default":
	default:
		return errs.New(errs.Invalid, "unsupported isolation: %q", i)
	}
	if b.Platform = strings.TrimSpace(r.query.Get("platform")); b.Platform != "" {
		if _, err := platforms.Parse(b.Platform); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	return nil
}

// number64 reads a number as Docker does: what is none is 0.
func number64(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// extraHosts takes each value apart, which old clients put commas into.
func extraHosts(values []string) []string {
	var list []string
	for _, v := range values {
		for h := range strings.SplitSeq(v, ",") {
			if h != "" {
				list = append(list, h)
			}
		}
	}
	return list
}

// registryConfig reads credentials by registry. What can't be read is nothing,
// as for Docker: a build may not need them.
func registryConfig(header string) map[string]wire.RegistryAuth {
	var m map[string]wire.RegistryAuth
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil || json.Unmarshal(data, &m) != nil {
		return nil
	}
	return m
}

// guardedBuilds carries out what the policy allows, of the very value that the
// builder is handed.
type guardedBuilds struct {
	Builds
	w world
}

// Build builds if the policy allows the request. What it names as outputs counts
// like its tags.
func (g guardedBuilds) Build(ctx context.Context, r wire.BuildRequest, body io.Reader, tell func(wire.BuildMessage) error) error {
	p := g.w.policy.Load()
	b := policy.BuildRequest{Network: r.Network, Remote: r.Remote, CgroupParent: r.CgroupParent, Tags: r.Tags}
	for _, o := range r.Outputs {
		names := strings.Split(o.Attrs["name"], ",")
		if names[0] != "" {
			b.Tags = append(b.Tags, names...)
		}
		if truth(o.Attrs["push"]) || o.Type == "registry" {
			if err := p.Operation("image.push", string(classData)); err != nil {
				return err
			}
		}
	}
	if err := p.RunBuild(b); err != nil {
		return err
	}
	return g.Builds.Build(ctx, r, body, tell)
}

package plan

import (
	"maps"
	"slices"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// defaultPath is PATH in a container that sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mergeImage puts the image's configuration under the user's and checks that
// there is something to run.
func mergeImage(cfg *wire.ContainerConfig, img *Image) error {
	if img != nil {
		mergeImageConfig(cfg, img)
	}
	if len(cfg.Entrypoint) == 1 && cfg.Entrypoint[0] == "" {
		// The user's way to say: not the image's entry point.
		cfg.Entrypoint = nil
	}
	if len(cfg.Entrypoint) == 0 && len(cfg.Cmd) == 0 {
		return errs.New(errs.Invalid, "no command specified")
	}
	if cfg.Labels == nil {
		cfg.Labels = map[string]string{}
	}
	return nil
}

func mergeImageConfig(cfg *wire.ContainerConfig, img *Image) {
	ic := img.Config
	cfg.User = firstNonEmpty(cfg.User, ic.User)
	cfg.WorkingDir = firstNonEmpty(cfg.WorkingDir, ic.WorkingDir)
	cfg.StopSignal = firstNonEmpty(cfg.StopSignal, ic.StopSignal)
	cfg.Env = mergeEnv(cfg.Env, ic.Env)
	cfg.Labels = under(cfg.Labels, ic.Labels)
	cfg.Volumes = under(cfg.Volumes, ic.Volumes)
	cfg.ExposedPorts = mergePorts(cfg.ExposedPorts, ic.ExposedPorts)
	if len(cfg.Shell) == 0 {
		cfg.Shell = slices.Clone(ic.Shell)
	}
	if len(cfg.Entrypoint) == 0 {
		// The image's arguments belong to the image's entry point.
		if len(cfg.Cmd) == 0 {
			cfg.Cmd = slices.Clone(ic.Cmd)
		}
		if cfg.Entrypoint == nil {
			cfg.Entrypoint = slices.Clone(ic.Entrypoint)
		}
	}
	cfg.Healthcheck = mergeHealth(cfg.Healthcheck, ic.Healthcheck)
}

// under adds those of low that top lacks.
func under[V any](top, low map[string]V) map[string]V {
	if len(low) == 0 {
		return top
	}
	out := maps.Clone(low)
	maps.Copy(out, top)
	return out
}

// mergeEnv appends those of the image that the user did not set. A user's "K"
// without a value counts: it takes the variable away.
func mergeEnv(user, image []string) []string {
	set := map[string]bool{}
	for _, kv := range user {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	for _, kv := range image {
		if k, _, _ := strings.Cut(kv, "="); !set[k] {
			user = append(user, kv)
		}
	}
	return user
}

func mergePorts(user wire.PortSet, image map[string]struct{}) wire.PortSet {
	for text := range image {
		port, err := wire.ParsePort(text)
		if err != nil {
			continue // an image's typing error is no reason not to run it
		}
		if user == nil {
			user = wire.PortSet{}
		}
		user[port] = struct{}{}
	}
	return user
}

func mergeHealth(user, image *wire.Healthcheck) *wire.Healthcheck {
	if image == nil {
		return user
	}
	if user == nil {
		h := *image
		return &h
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = slices.Clone(image.Test)
	}
	for _, f := range []struct{ to, from *int64 }{
		{(*int64)(&h.Interval), (*int64)(&image.Interval)},
		{(*int64)(&h.Timeout), (*int64)(&image.Timeout)},
		{(*int64)(&h.StartPeriod), (*int64)(&image.StartPeriod)},
		{(*int64)(&h.StartInterval), (*int64)(&image.StartInterval)},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}

// Environ is the environment of a container's process, without HOME, which
// takes the user's resolution: PATH, HOSTNAME, TERM on a terminal and the
// variables of links come first; env replaces them in place or is appended. A
// "K" without a value takes K away.
func Environ(env []string, hostname string, links []string, term Terminal) []string {
	out := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}
	if term {
		out = append(out, "TERM=xterm")
	}
	return Override(append(out, links...), env)
}

// Terminal says whether a process has one.
type Terminal bool

// Override replaces variables of base by those of env of the same name, in
// place, and appends the others. A "K" without a value takes K away.
func Override(base, env []string) []string {
	out := slices.Clone(base)
	at := make(map[string]int, len(out))
	for i, kv := range out {
		k, _, _ := strings.Cut(kv, "=")
		at[k] = i
	}
	for _, kv := range env {
		k, _, hasValue := strings.Cut(kv, "=")
		i, known := at[k]
		switch {
		case !hasValue && known:
			out[i] = ""
		case !hasValue:
		case known:
			out[i] = kv
		default:
			at[k] = len(out)
			out = append(out, kv)
		}
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
}

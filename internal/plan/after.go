package plan

import (
	"slices"
	"strings"

	"gantry/internal/errs"
)

// After names a container that has to be up, or healthy, before another is
// started by the daemon.
type After struct {
	Container string // name or ID, as the user said
	Healthy   bool
}

// String returns it as the user writes it: "db", "db:healthy".
func (a After) String() string {
	if a.Healthy {
		return a.Container + ":healthy"
	}
	return a.Container
}

// parseAfter reads "name[:healthy]".
func parseAfter(list []string) ([]After, error) {
	var out []After
	for _, s := range list {
		name, state, has := strings.Cut(strings.TrimPrefix(s, "/"), ":")
		if name == "" || has && state != "healthy" && state != "running" {
			return nil, errs.New(errs.Invalid, "invalid --after %q: it is the name of a container, or name:healthy", s)
		}
		out = append(out, After{Container: name, Healthy: state == "healthy"})
	}
	return out, nil
}

// Cycle finds a chain of containers that wait for each other, from a container
// of the given name with the given wishes, through those of others by name. It
// returns the names along the chain, the first of them again at the end, or nil.
func Cycle(name string, after []After, others map[string][]After) []string {
	seen := map[string]bool{}
	var walk func(at []After, path []string) []string
	walk = func(at []After, path []string) []string {
		for _, d := range at {
			next := append(slices.Clone(path), d.Container)
			if d.Container == name {
				return next
			}
			if seen[d.Container] {
				continue
			}
			seen[d.Container] = true
			if found := walk(others[d.Container], next); found != nil {
				return found
			}
		}
		return nil
	}
	return walk(after, []string{name})
}

// StopWaves orders containers for a shutdown: those of one wave may be stopped
// at the same time, once the waves before it are down. after holds what each
// is started after, by name; names that are no key do not count. In a cycle
// all are in one wave.
func StopWaves(after map[string][]After) [][]string {
	left := map[string]bool{}
	for name := range after {
		left[name] = true
	}
	var waves [][]string
	for len(left) > 0 {
		needed := map[string]bool{}
		for name := range left {
			for _, d := range after[name] {
				needed[d.Container] = d.Container != name || needed[d.Container]
			}
		}
		var wave []string
		for name := range left {
			if !needed[name] {
				wave = append(wave, name)
			}
		}
		if wave == nil { // only cycles are left
			for name := range left {
				wave = append(wave, name)
			}
		}
		slices.Sort(wave)
		for _, name := range wave {
			delete(left, name)
		}
		waves = append(waves, wave)
	}
	return waves
}

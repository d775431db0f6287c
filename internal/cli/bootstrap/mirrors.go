package bootstrap

import (
	"context"
	"os/exec"
	"slices"
	"strings"
)

// targetFormat has apt print what it knows of each list of packages.
const targetFormat = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"

// hostMirrors asks this host's apt where it gets a release from. It is empty where
// there is no apt, or where it gets another release: the programs then use what
// they were built with.
func hostMirrors(ctx context.Context, r Release) []string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", targetFormat, "Created-By: Packages").Output()
	if err != nil {
		return nil
	}
	return Sources(string(out), r)
}

// Sources returns the lines of sources.list for r, of what apt printed in
// targetFormat: main of the suite itself, its updates and its security fixes, and
// no repositories of others that are called like it. It is empty without the suite
// itself.
func Sources(targets string, r Release) []string {
	var out []string
	found := false
	for line := range strings.Lines(targets) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		uri, suite, component, origin := f[0], f[1], f[2], f[3]
		if strings.ContainsAny(uri+suite+component, " \t[]#") || !strings.EqualFold(origin, r.Distro) {
			continue
		}
		if component != "main" && (r.Distro != "ubuntu" || component != "universe") {
			continue
		}
		switch suite {
		case r.Suite:
			found = true
		case r.Suite + "-updates", r.Suite + "-security":
		default:
			continue
		}
		if l := "deb " + uri + " " + suite + " " + component; !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	if !found {
		return nil
	}
	return out
}

// proxies returns the variables by which the programs learn of apt's proxies.
func proxies(ctx context.Context) []string {
	var env []string
	for _, scheme := range []string{"http", "https"} {
		out, err := exec.CommandContext(ctx, "apt-config", "shell", "p", "Acquire::"+scheme+"::Proxy").Output()
		if err != nil {
			return nil
		}
		v, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "p=")
		if v = strings.Trim(v, "'"); ok && v != "" && v != "DIRECT" && v != "false" {
			env = append(env, scheme+"_proxy="+v)
		}
	}
	return env
}

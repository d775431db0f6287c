package cli

import (
	"strings"
	"testing"
)

func TestWhatThePluginOfBuildsIsAskedFor(t *testing.T) {
	env := func(v string) func(string) string {
		return func(k string) string {
			if k == "DOCKER_BUILDKIT" {
				return v
			}
			return ""
		}
	}
	for _, c := range []struct{ args, buildkit, want string }{
		{"build -t a .", "", "buildx build -t a ."},
		{"build .", "1", "buildx build ."},
		{"build .", "0", ""},
		{"build --squash .", "", ""},
		{"image build .", "", "buildx build ."},
		{"builder build .", "false", ""},
		{"buildx ls", "0", "buildx ls"},
		{"bake a", "0", "buildx bake a"},
		{"builder du", "", "buildx du"},
		{"builder history ls", "", "buildx history ls"},
		{"builder prune", "", ""},
		{"image ls", "", ""},
		{"builder", "", ""},
	} {
		if got := strings.Join(builds(strings.Fields(c.args), env(c.buildkit)), " "); got != c.want {
			t.Errorf("%s with %q: %q, not %q", c.args, c.buildkit, got, c.want)
		}
	}
}

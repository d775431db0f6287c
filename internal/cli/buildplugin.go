package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// ownPlugin returns the program of a plugin that belongs to the project: beside
// this program, as in a build, or where it is installed; "" if it is not there.
// The user's directories are not looked into: they may hold docker's of the name.
func ownPlugin(name string) string {
	dirs := []string{"/usr/local/lib/gantry/cli-plugins", "/usr/lib/gantry/cli-plugins"}
	if self, err := os.Executable(); err == nil {
		d := filepath.Dir(self)
		dirs = append([]string{d, filepath.Join(d, "..", "lib", "gantry", "cli-plugins")}, dirs...)
	}
	for _, d := range dirs {
		if p := filepath.Join(d, "gantry-"+name); isProgram(p) {
			return p
		}
	}
	return ""
}

func isProgram(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// builds returns what the plugin that builds is asked for by a command, nil if
// the command is not its. With DOCKER_BUILDKIT=0 or --squash a build is the classic one.
func builds(rest []string, getenv func(string) string) []string {
	// Only the classic builder squashes.
	classic := slices.Contains(rest, "--squash") || slices.Contains(rest, "--squash=true")
	if on, err := strconv.ParseBool(getenv("DOCKER_BUILDKIT")); err == nil {
		classic = classic || !on
	}
	switch {
	case rest[0] == "buildx":
		return rest
	case rest[0] == "bake":
		return append([]string{"buildx"}, rest...)
	case rest[0] == "build" && !classic:
		return append([]string{"buildx"}, rest...)
	case len(rest) > 1 && (rest[0] == "image" || rest[0] == "builder") && rest[1] == "build" && !classic:
		return append([]string{"buildx"}, rest[1:]...)
	case len(rest) > 1 && rest[0] == "builder" && slices.Contains([]string{"bake", "cache", "du", "history", "inspect", "ls"}, rest[1]):
		return append([]string{"buildx"}, rest[1:]...)
	}
	return nil
}

// Package script runs the command line's stories as txtar scripts: one real
// daemon for each, and the programs as they are installed. A script says what a
// person types and what must be seen; see testdata.
package script

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gantry/internal/testkit"
)

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			d := testkit.StartDaemon(t)
			d.LoadBusybox(t)
			testscript.Run(t, testscript.Params{
				Files: []string{f},
				Setup: func(e *testscript.Env) error {
					bin := filepath.Join(e.WorkDir, "bin")
					if err := os.Mkdir(bin, 0o755); err != nil {
						return err
					}
					// The program goes by both of its names.
					for _, name := range []string{"gantry", "docker"} {
						if err := os.Symlink(d.Program("gantry"), filepath.Join(bin, name)); err != nil {
							return err
						}
					}
					e.Setenv("PATH", bin+":"+e.Getenv("PATH"))
					e.Setenv("GANTRY_HOST", "unix://"+d.Socket)
					e.Setenv("ROOT", d.Root)
					e.Setenv("DOCKER_CONFIG", filepath.Join(e.WorkDir, "config"))
					return nil
				},
			})
		})
	}
}

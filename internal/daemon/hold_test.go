package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/config"
	"gantry/internal/errs"
)

func TestOneDaemonForADirectory(t *testing.T) {
	dir := t.TempDir()
	at := func(root, run, pid string) (*Daemon, error) {
		c := config.Default()
		c.Root, c.Run, c.PidFile = filepath.Join(dir, root), filepath.Join(dir, run), filepath.Join(dir, pid)
		d := &Daemon{log: slog.New(slog.DiscardHandler)}
		return d, d.hold(c)
	}
	first, err := at("root", "run", "pid")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "pid")); err != nil || string(data) != fmt.Sprint(os.Getpid()) {
		t.Errorf("pid file %q, %v", data, err)
	}
	second, err := at("root", "other", "other.pid")
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "another daemon uses "+dir+"/root") {
		t.Errorf("the same data root: %v", err)
	}
	if err := first.close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
		t.Error("the pid file stays")
	}
	if err := second.close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPidFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	for content, want := range map[string]int{
		"": 0, "x": 0, "-1": 0, "0": 0, "1": 0, "999999999": 0,
		fmt.Sprint(os.Getpid()): 0, // a container's daemon may get the same number again
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := livingDaemon(file); got != want {
			t.Errorf("%q: %d", content, got)
		}
	}
	if livingDaemon(file+"x") != 0 {
		t.Error("no file")
	}
}

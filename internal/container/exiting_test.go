package container

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestExiting(t *testing.T) {
	for stat, want := range map[string]bool{
		"12 (sleep) S 1 12 12 0 -1 4194560 1 0":    false,
		"12 (a) Z (b)) R 1 12 12 0 -1 4194564 1 0": true, // PF_EXITING
		"12 (sleep) Z 1 12 12 0 -1 4228100 0 0":    true,
		"":                                         false, "12 (x": false, "12 (x) S 1": false,
	} {
		if got := exitingStat([]byte(stat)); got != want {
			t.Errorf("%q: %v", stat, got)
		}
	}
	if exiting(os.Getpid()) || exiting(0) {
		t.Error("a process that runs is taken to exit")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !exiting(cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a zombie is not taken to exit")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

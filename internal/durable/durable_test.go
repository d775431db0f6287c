package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

func TestWriteFileReplaces(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "two, longer", ""} {
		if err := durable.WriteFile(p, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(p)
		if err != nil || string(got) != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	st, err := os.Stat(p)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(p)); len(left) != 1 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestWriteFileNamesThePath(t *testing.T) {
	p := filepath.Join(t.TempDir(), "no", "f")
	err := durable.WriteFile(p, nil, 0o600)
	if !os.IsNotExist(unwrapAll(err)) {
		t.Fatalf("err = %v", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

func TestLockDirExcludes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	l, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockDir(dir); !errs.Is(err, errs.Conflict) {
		t.Errorf("second lock: %v, want a conflict", err)
	}
	l.Close()
	again, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

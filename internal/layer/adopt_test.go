package layer

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// listing describes what is in a directory: modes, owners, times, attributes.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if st.Mode&unix.S_IFMT == unix.S_IFCHR { // a whiteout has no time of its own
			st.Mtim = unix.Timespec{}
		}
		x := make([]byte, 16)
		n, _ := unix.Lgetxattr(p, opaqueXattr, x)
		fmt.Fprintf(&b, "%s %o %d:%d %d %q\n", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), x[:max(n, 0)])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A layer unpacked without those below it, and completed when they are there, is
// the same as one unpacked over them.
func TestBlind(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	low := testkit.Layer(
		testkit.File{Name: "tmp/", Mode: 0o1777}, testkit.File{Name: "tmp/a", Data: []byte("a")}, testkit.File{Name: "etc/", UID: 3, GID: 4, Mode: 0o750},
		testkit.File{Name: "etc/deep/", Mode: 0o700, UID: 7}, testkit.File{Name: "etc/deep/x"}, testkit.File{Name: "link", Link: "etc"}, testkit.File{Name: "gone/"}, testkit.File{Name: "gone/f"})
	high := testkit.Layer(
		testkit.File{Name: "tmp/b", Data: []byte("b")}, testkit.File{Name: "tmp/.wh.a"}, testkit.File{Name: "etc/deep/.wh..wh..opq"}, testkit.File{Name: "etc/deep/y"},
		testkit.File{Name: "new/dir/f"}, testkit.File{Name: "late/f"}, testkit.File{Name: "late/", Mode: 0o711, UID: 9}, testkit.File{Name: ".wh.gone"}, testkit.File{Name: "link/f"})
	base, seen, blind := t.TempDir(), t.TempDir(), t.TempDir()
	if _, _, err := Unpack(t.Context(), base, bytes.NewReader(low), "", Options{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Unpack(t.Context(), seen, bytes.NewReader(high), "", Options{Parents: []string{base}}); err != nil {
		t.Fatal(err)
	}
	_, stats, err := Unpack(t.Context(), blind, bytes.NewReader(high), "", Options{Blind: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Implied) == 0 {
		t.Fatal("nothing was implied: the test tests nothing")
	}
	if err := Adopt(blind, stats.Implied, []string{base}); err != nil {
		t.Fatal(err)
	}
	drop := func(s string) string { // directories that are new have the time of the test
		var b strings.Builder
		for line := range strings.Lines(s) {
			if !strings.HasPrefix(line, "new ") && !strings.HasPrefix(line, "new/dir ") && !strings.HasPrefix(line, "link ") && !strings.HasPrefix(line, ". ") {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	if a, b := drop(listing(t, seen)), drop(listing(t, blind)); a != b {
		t.Errorf("over those below:\n%s\nblind:\n%s", a, b)
	}
}

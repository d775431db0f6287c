package solve

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"gantry/internal/wire"
)

// tree makes a directory with everything that a context may have.
func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ctx")
	file := func(name, text string) error {
		at := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o640))
	}
	err := errors.Join(file("b/c", "c"), file("b.x", "before the files of b, by its bytes"), file("b/d/e", ""), file("é/ü", "u"), file("node_modules/x/y", "y"), file("keep/node_modules/z", "z"),
		file("a.o", "o"), file("b/a.o", "o"), os.Mkdir(filepath.Join(dir, "empty"), 0o700),
		os.Symlink("b/c", filepath.Join(dir, "link")), os.Symlink("nowhere", filepath.Join(dir, "b/dangling")), os.Symlink("b", filepath.Join(dir, "to-b")),
		os.Link(filepath.Join(dir, "b/c"), filepath.Join(dir, "b/same")), os.Link(filepath.Join(dir, "b/c"), filepath.Join(dir, "z-same")),
		os.Chmod(filepath.Join(dir, "b.x"), 0o755|fs.ModeSetuid), syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "b.x"), "user.one", []byte("1"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return dir
}

// walked is what BuildKit's own client would send.
func walked(t *testing.T, f fsutil.FS, opt fsutil.FilterOpt) (all listing) {
	t.Helper()
	f, err := fsutil.NewFilterFS(rooted{f}, &opt)
	if err != nil {
		t.Fatal(err)
	}
	err = fsutil.WithHardlinkReset(f).Walk(t.Context(), "/", func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			all = append(all, fi.Sys().(*types.Stat))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAListingIsWhatAWalkFinds(t *testing.T) {
	dir := tree(t)
	f, end, err := openDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	sums := map[string]string{}
	for name, c := range map[string]struct {
		n   int
		opt fsutil.FilterOpt
	}{
		"all":      {23, fsutil.FilterOpt{}},
		"excluded": {19, fsutil.FilterOpt{ExcludePatterns: []string{"**/node_modules", "*.o", "!keep/node_modules/z"}}},
		"included": {5, fsutil.FilterOpt{IncludePatterns: []string{"b"}, ExcludePatterns: []string{"b/d"}}},
		"some":     {3, fsutil.FilterOpt{IncludePatterns: []string{"b/d/e"}}},
		"followed": {9, fsutil.FilterOpt{FollowPaths: []string{"to-b", "link"}}},
		"none":     {0, fsutil.FilterOpt{IncludePatterns: []string{"nothing"}}},
	} {
		want := walked(t, f, c.opt)
		got, err := f.(*localDir).list(t.Context(), c.opt)
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !got[i].EqualVT(want[i]) {
				t.Errorf("%s: %d of %d is not that of %d:\n%v\n%v", name, i, len(got), len(want), at(got, i), at(want, i))
				break
			}
		}
		if got.sum() != want.sum() {
			t.Errorf("%s: another checksum", name)
		}
		if was := sums[got.sum()]; was != "" {
			t.Errorf("%s has the checksum of %s", name, was)
		}
		sums[got.sum()] = name
		if len(got) != c.n {
			t.Errorf("%s: %d of %d", name, len(got), c.n)
		}
	}
}

func at(l listing, i int) *types.Stat {
	if i < len(l) {
		return l[i]
	}
	return nil
}

func TestAChecksumIsOfAllThatIsSent(t *testing.T) {
	base := types.Stat{Path: "p", Mode: 0o644, Size: 1, ModTime: 1}
	seen := map[string]string{}
	for name, change := range map[string]func(*types.Stat){
		"nothing": func(*types.Stat) {}, "path": func(s *types.Stat) { s.Path = "q" }, "mode": func(s *types.Stat) { s.Mode++ }, "uid": func(s *types.Stat) { s.Uid++ }, "gid": func(s *types.Stat) { s.Gid++ },
		"size": func(s *types.Stat) { s.Size++ }, "time": func(s *types.Stat) { s.ModTime++ }, "link": func(s *types.Stat) { s.Linkname = "p" }, "major": func(s *types.Stat) { s.Devmajor++ }, "minor": func(s *types.Stat) { s.Devminor++ },
		"xattr": func(s *types.Stat) { s.Xattrs = map[string][]byte{"k": []byte("v")} }, "its name": func(s *types.Stat) { s.Xattrs = map[string][]byte{"kv": nil} },
		"into the link": func(s *types.Stat) { s.Path, s.Linkname = "", "p" },
	} {
		s := base.CloneVT()
		change(s)
		sum := listing{s}.sum()
		if was, ok := seen[sum]; ok {
			t.Errorf("%s is as %s", name, was)
		}
		seen[sum] = name
	}
	dir, later := types.Stat{Mode: uint32(fs.ModeDir)}, types.Stat{Mode: uint32(fs.ModeDir), ModTime: 1}
	if (listing{&dir}).sum() != (listing{&later}).sum() {
		t.Error("the time of a directory is in it")
	}
	many := types.Stat{Xattrs: map[string][]byte{"a": nil, "b": nil, "c": nil, "d": nil}}
	for range 20 {
		if (listing{&many}).sum() != (listing{many.CloneVT()}).sum() {
			t.Fatal("the order of a map is in it")
		}
	}
}

// calling returns the daemon's side of a session with an offer of dirs.
func calling(t *testing.T, dirs map[string]fsutil.FS) session.Caller {
	t.Helper()
	m, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.NewSession(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(newOffer(dirs))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _ = m.HandleConn(ctx, theirs, meta) }()
			return gather(ours), nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	c, err := m.Get(t.Context(), s.ID(), false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsOfferedIsSentAsItWasSummed(t *testing.T) {
	dir := tree(t)
	f, end, err := openDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	c := calling(t, map[string]fsutil.FS{"context": f, "dockerfile": oneFile{"Dockerfile", []byte("FROM x")}})
	opt := filesync.FSSendRequestOpt{Name: "context", ExcludePatterns: []string{"fifo", "sock", "é/x"}}
	ask := func(method string) string {
		t.Helper()
		q, err := json.Marshal(wire.ContextAsk{Name: opt.Name, Include: opt.IncludePatterns, Exclude: opt.ExcludePatterns})
		if err != nil || !c.Supports(method) {
			t.Fatal(method, err)
		}
		var out filesync.BytesMessage
		if err := c.Conn().Invoke(c.Context(t.Context()), method, &filesync.BytesMessage{Data: q}, &out); err != nil {
			t.Fatal(method, err)
		}
		return string(out.Data)
	}
	opt.DestDir = filepath.Join(t.TempDir(), "copy")
	sync := func() {
		t.Helper()
		if err := errors.Join(os.MkdirAll(opt.DestDir, 0o755), filesync.FSSync(t.Context(), c, opt)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("diff", "-r", "--no-dereference", "-x", "fifo", "-x", "sock", dir, opt.DestDir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	sync()
	if got := ask(wire.ContextSent); got != "" {
		t.Error("what nobody has summed has the checksum", got)
	}
	first := ask(wire.ContextSum)
	if first == "" || ask(wire.ContextSum) != first || ask(wire.ContextSent) != "" {
		t.Error("checksum", first)
	}
	// A file that changes after the checksum is not in what is sent with it.
	if err := os.Chtimes(filepath.Join(dir, "b/d/e"), time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	sync()
	if got := ask(wire.ContextSent); got != first {
		t.Errorf("%q was sent, not %q", got, first)
	}
	if fi, err := os.Stat(filepath.Join(opt.DestDir, "b/d/e")); err != nil || fi.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Error("it is sent as it was after its checksum", err)
	}
	if again := ask(wire.ContextSum); again == first || again == "" || ask(wire.ContextSent) != "" {
		t.Error("a change does not show:", again)
	}
	sync()
	if fi, err := os.Stat(filepath.Join(opt.DestDir, "b/d/e")); err != nil || !fi.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Error("the change is not sent", err)
	}
	opt = filesync.FSSendRequestOpt{Name: "dockerfile", IncludePatterns: []string{"Dockerfile"}, DestDir: t.TempDir()}
	if got := ask(wire.ContextSum); got != "" {
		t.Error("a file that is none has the checksum", got)
	}
	if err := filesync.FSSync(t.Context(), c, opt); err != nil {
		t.Error(err)
	}
	opt.Name = "other"
	if err := filesync.FSSync(t.Context(), c, opt); err == nil || ask(wire.ContextSum) != "" {
		t.Error("a directory that is not offered:", err)
	}
}

func TestWhatCantBeListedHasNoChecksum(t *testing.T) {
	dir := t.TempDir()
	f, end, err := openDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	o := newOffer(map[string]fsutil.FS{"context": f})
	if got := o.sum(t.Context(), `{"name":"context"}`); got != "" {
		t.Error(got)
	}
	for _, s := range []string{"", "[]", `{"name":"x"}`, `{"name":"context","exclude":["["]}`} {
		if got := o.sum(t.Context(), s); got != "" || o.lastSent(t.Context(), s) != "" {
			t.Errorf("%s: %s", s, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := f.(*localDir).list(ctx, fsutil.FilterOpt{}); err == nil {
		t.Error(l)
	}
	if !reflect.DeepEqual(key(wire.ContextAsk{Name: "a", Include: []string{}}), key(wire.ContextAsk{Name: "a"})) {
		t.Error("nothing is another question than none")
	}
}

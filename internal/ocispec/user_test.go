package ocispec

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const (
	passwd = `# comment
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
alice:x:1000:1001:Alice:/home/alice:/bin/sh

1234:x:77:78:digits:/home/digits:/bin/sh
huge:x:4294967296:0::/:/bin/sh
neg:x:-1:0::/:/bin/sh
noid:x::::
short:x
nohome:x:5:6
`
	group = `root:x:0:
bin:x:1:root,daemon
staff:x:50:alice
wheel:x:10:alice,root
1234:x:90:
huge:x:4294967296:bob
`
)

func TestLookupUser(t *testing.T) {
	const (
		noUser   = "unable to find user %s: no matching entries in passwd file"
		noGroup  = "unable to find group %s: no matching entries in group file"
		outRange = "uids and gids must be in range 0-2147483647"
	)
	for _, c := range []struct {
		user   string
		add    []string
		want   User
		failed string
	}{
		{user: "", want: User{0, 0, []uint32{0, 1, 10}, "/root"}},
		{user: "root", want: User{0, 0, []uint32{0, 1, 10}, "/root"}},
		{user: "0", want: User{0, 0, []uint32{0, 1, 10}, "/root"}},
		{user: "0:0", want: User{0, 0, []uint32{0}, "/root"}},
		{user: "alice", want: User{1000, 1001, []uint32{1001, 50, 10}, "/home/alice"}},
		{user: "1000", want: User{1000, 1001, []uint32{1001, 50, 10}, "/home/alice"}},
		{user: "alice:staff", want: User{1000, 50, []uint32{50}, "/home/alice"}},
		{user: "alice:5", want: User{1000, 5, []uint32{5}, "/home/alice"}},
		{user: "alice:", want: User{1000, 1001, []uint32{1001, 50, 10}, "/home/alice"}},
		{user: ":staff", want: User{0, 50, []uint32{50}, "/root"}},
		{user: "2000", want: User{2000, 0, []uint32{0}, "/"}},
		{user: "2000:3000", want: User{2000, 3000, []uint32{3000}, "/"}},
		{user: "1234", want: User{1234, 0, []uint32{0}, "/"}}, // digits are a number, never a name
		{user: "nohome", want: User{5, 6, []uint32{6}, "/"}},
		{user: "", add: []string{"77", "staff", "50", "77"}, want: User{0, 0, []uint32{0, 1, 10, 77, 50}, "/root"}},
		{user: "0:0", add: []string{"1234"}, want: User{0, 0, []uint32{0, 90}, "/root"}},
		{user: "2147483647:2147483647", want: User{2147483647, 2147483647, []uint32{2147483647}, "/"}},
		{user: "nouser", failed: strings.ReplaceAll(noUser, "%s", "nouser")},
		{user: "nouser:0", failed: strings.ReplaceAll(noUser, "%s", "nouser")},
		{user: "99999999999999999999", failed: strings.ReplaceAll(noUser, "%s", "99999999999999999999")},
		{user: "alice:nogroup", failed: strings.ReplaceAll(noGroup, "%s", "nogroup")},
		{user: "", add: []string{"nogroup"}, failed: strings.ReplaceAll(noGroup, "%s", "nogroup")},
		{user: "4294967296:0", failed: outRange},
		{user: "2147483648", failed: outRange},
		{user: "-1", failed: outRange},
		{user: "0:4294967296", failed: outRange},
		{user: "0:-1", failed: outRange},
		{user: "huge", failed: outRange},
		{user: "neg", failed: outRange},
		{user: "noid", failed: outRange},
		{user: "0:huge", failed: outRange},
		{user: "", add: []string{"huge"}, failed: outRange},
		{user: "", add: []string{"4294967296"}, failed: outRange},
		{user: "", add: []string{"-1"}, failed: outRange},
	} {
		got, err := LookupUser(c.user, strings.NewReader(passwd), strings.NewReader(group), c.add)
		if c.failed != "" {
			if err == nil || err.Error() != c.failed {
				t.Errorf("%q %v: got %+v, %v, want %s", c.user, c.add, got, err, c.failed)
			}
			continue
		}
		if err != nil || got.UID != c.want.UID || got.GID != c.want.GID || got.Home != c.want.Home || !slices.Equal(got.Groups, c.want.Groups) {
			t.Errorf("%q %v: got %+v, %v, want %+v", c.user, c.add, got, err, c.want)
		}
	}
}

func TestLookupUserWithoutFiles(t *testing.T) {
	got, err := LookupUser("", nil, nil, nil)
	if err != nil || got.UID != 0 || got.Home != "/" || !slices.Equal(got.Groups, []uint32{0}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := LookupUser("root", nil, nil, nil); err == nil {
		t.Error("a name was found without a file")
	}
}

func TestLookupUserBounds(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(passwd), zeros{})
	if _, err := LookupUser("alice", endless, nil, nil); err == nil {
		t.Error("an endless line was read")
	}
	many := strings.NewReader(strings.Repeat("u:x:1:1::/:\n", maxUserFile/12+1))
	if _, err := LookupUser("0", many, nil, nil); err == nil {
		t.Error("a file of more than 8 MiB was read")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func FuzzLookupUser(f *testing.F) {
	f.Add("alice:staff", passwd, group, "50")
	f.Add("4294967296:0", "a:b", ":::\n", "-1")
	f.Fuzz(func(t *testing.T, user, p, g, add string) {
		u, err := LookupUser(user, strings.NewReader(p), strings.NewReader(g), []string{add})
		if err != nil {
			return
		}
		if len(u.Groups) == 0 || u.Groups[0] != u.GID {
			t.Errorf("groups %v of group %d", u.Groups, u.GID)
		}
		for _, id := range append(u.Groups, u.UID) {
			if id > maxID {
				t.Errorf("id %d passed", id)
			}
		}
		if u.Home == "" {
			t.Error("no home")
		}
	})
}

package ocispec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxID is the highest user or group number: the kernel's are unsigned, but
// enough programs take them as signed that Docker stops there.
const maxID = 1<<31 - 1

// maxUserFile bounds passwd and group, which an image's author writes.
const maxUserFile = 8 << 20

var errRange = fmt.Errorf("uids and gids must be in range 0-%d", maxID)

// passwdEntry and groupEntry are lines of passwd(5) and group(5). A number
// that does not parse is -1: such a line is found by name only, and refused.
type (
	passwdEntry struct {
		name     string
		uid, gid int64
		home     string
	}
	groupEntry struct {
		name    string
		gid     int64
		members []string
	}
)

// LookupUser resolves a container's user: "", "name", "uid", "name:group",
// "uid:gid". passwd and group are the files of the container's root; nil for a
// missing one. groupAdd are further groups, by name or number.
//
// The groups are the user's primary one, those of group that list him unless
// user names a group, and groupAdd: no others. Errors carry Docker's texts and
// no kind: a container's start answers them with 500, an exec with 400.
func LookupUser(user string, passwd, group io.Reader, groupAdd []string) (User, error) {
	users, err := readUsers(passwd)
	if err != nil {
		return User{}, fmt.Errorf("unable to find user %s: %w", user, err)
	}
	groups, err := readGroups(group)
	if err != nil {
		return User{}, fmt.Errorf("unable to find groups for spec %s: %w", user, err)
	}
	userArg, groupArg, _ := strings.Cut(user, ":")
	u, err := findUser(userArg, users)
	if err != nil {
		return User{}, err
	}
	var extra []int64
	if groupArg != "" {
		if u.gid, err = findGroup(groupArg, groups); err != nil {
			return User{}, err
		}
	} else if u.name != "" {
		for _, g := range groups {
			if slices.Contains(g.members, u.name) {
				extra = append(extra, g.gid)
			}
		}
	}
	added, err := findGroups(groupAdd, groups)
	if err != nil {
		return User{}, err
	}
	extra = append(extra, added...)
	for _, id := range append([]int64{u.uid, u.gid}, extra...) {
		if id < 0 || id > maxID {
			return User{}, errRange
		}
	}
	out := User{UID: uint32(u.uid), GID: uint32(u.gid), Groups: []uint32{uint32(u.gid)}, Home: u.home}
	for _, g := range extra {
		out.Groups = append(out.Groups, uint32(g))
	}
	if out.Home == "" {
		out.Home = "/"
	}
	return out, nil
}

// findUser finds arg, a name or a number, and "" as number 0. A number is never
// taken for a name; one without an entry is a user of group 0.
func findUser(arg string, users []passwdEntry) (passwdEntry, error) {
	number, numErr := strconv.ParseInt(arg, 10, 64)
	if arg == "" {
		number, numErr = 0, nil
	}
	for _, u := range users {
		if numErr == nil && u.uid == number && number >= 0 || numErr != nil && u.name == arg {
			return u, nil
		}
	}
	if numErr != nil {
		return passwdEntry{}, fmt.Errorf("unable to find user %s: no matching entries in passwd file", arg)
	}
	if number < 0 || number > maxID {
		return passwdEntry{}, errRange
	}
	return passwdEntry{uid: number}, nil
}

func findGroup(arg string, groups []groupEntry) (int64, error) {
	number, numErr := strconv.ParseInt(arg, 10, 64)
	for _, g := range groups {
		if numErr == nil && g.gid == number && number >= 0 || numErr != nil && g.name == arg {
			return g.gid, nil
		}
	}
	if numErr != nil {
		return 0, fmt.Errorf("unable to find group %s: no matching entries in group file", arg)
	}
	if number < 0 || number > maxID {
		return 0, errRange
	}
	return number, nil
}

// findGroups resolves the further groups, each once.
func findGroups(args []string, groups []groupEntry) ([]int64, error) {
	var out []int64
	for _, arg := range args {
		gid, err := findGroup(arg, groups)
		if i := slices.IndexFunc(groups, func(g groupEntry) bool { return g.name == arg }); i >= 0 {
			gid, err = groups[i].gid, nil // here a name of digits is a name too
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, gid) {
			out = append(out, gid)
		}
	}
	return out, nil
}

func readUsers(r io.Reader) ([]passwdEntry, error) {
	var out []passwdEntry
	err := eachLine(r, func(f []string) {
		if len(f) >= 4 {
			e := passwdEntry{name: f[0], uid: number(f[2]), gid: number(f[3])}
			if len(f) >= 6 {
				e.home = f[5]
			}
			out = append(out, e)
		}
	})
	return out, err
}

func readGroups(r io.Reader) ([]groupEntry, error) {
	var out []groupEntry
	err := eachLine(r, func(f []string) {
		if len(f) >= 3 {
			e := groupEntry{name: f[0], gid: number(f[2])}
			if len(f) >= 4 && f[3] != "" {
				e.members = strings.Split(f[3], ",")
			}
			out = append(out, e)
		}
	})
	return out, err
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// eachLine calls f with the fields of each line; comments and blank lines are
// left out.
func eachLine(r io.Reader, f func(fields []string)) error {
	if r == nil {
		return nil
	}
	limited := &io.LimitedReader{R: r, N: maxUserFile + 1}
	sc := bufio.NewScanner(limited)
	sc.Buffer(nil, maxUserFile)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f(strings.Split(line, ":"))
	}
	if err := sc.Err(); err != nil {
		return err
	}
	if limited.N <= 0 {
		return errors.New("file is larger than 8 MiB")
	}
	return nil
}

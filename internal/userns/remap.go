package userns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// Files are where users and subordinate ids are listed.
type Files struct{ Passwd, Group, SubUID, SubGID string }

// HostFiles returns those of the machine.
func HostFiles() Files {
	return Files{Passwd: "/etc/passwd", Group: "/etc/group", SubUID: "/etc/subuid", SubGID: "/etc/subgid"}
}

// Remap returns the maps that a setting of --userns-remap means: "default", or a
// user by name or number, and after a colon a group; without a group that of
// the user's name. "host" and "" are no remapping and an empty Map.
//
// For "default" an owner without a range is given one, in both files. Errors are
// errs.Invalid.
func Remap(setting string, f Files) (Map, error) {
	var m Map
	if setting == "" || setting == "host" {
		return m, nil
	}
	user, group, err := owners(setting, f)
	if err != nil {
		return m, err
	}
	for _, side := range []struct {
		file  string
		owner owner
		to    *[]specs.LinuxIDMapping
	}{{f.SubUID, user, &m.UID}, {f.SubGID, group, &m.GID}} {
		ranges, err := rangesOf(side.file, side.owner)
		if err != nil {
			return m, err
		}
		if len(ranges) == 0 && setting == "default" {
			r, err := grant(side.file, side.owner.name)
			if err != nil {
				return m, err
			}
			ranges = []Range{r}
		}
		if len(ranges) == 0 {
			return m, errs.New(errs.Invalid, "userns-remap: no subordinate ids for %s in %s: add a line such as %s:100000:65536", side.owner.name, side.file, side.owner.name)
		}
		if *side.to, err = join(ranges); err != nil {
			return m, errs.New(errs.Invalid, "userns-remap: %s: %w", side.file, err)
		}
	}
	return m, nil
}

// An owner of subordinate ids, under the names that it may be listed with.
type owner struct{ name, id string }

// owners reads the setting.
func owners(setting string, f Files) (user, group owner, err error) {
	if setting == "default" {
		return owner{name: DefaultUser}, owner{name: DefaultUser}, nil
	}
	u, g, given := strings.Cut(setting, ":")
	if u == "" || given && g == "" || strings.Contains(g, ":") {
		return user, group, errs.New(errs.Invalid, "invalid user/group specification in --userns-remap: %q", setting)
	}
	if user, err = find(f.Passwd, u); err != nil {
		return user, group, errs.New(errs.Invalid, "userns-remap: unable to find user %s: %w", u, err)
	}
	if !given {
		g = user.name
	}
	if group, err = find(f.Group, g); err != nil {
		return user, group, errs.New(errs.Invalid, "userns-remap: unable to find group %s: %w", g, err)
	}
	return user, group, nil
}

// find looks an account up by name or number in passwd(5) or group(5).
func find(file, want string) (owner, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return owner{}, err
	}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		f := strings.Split(sc.Text(), ":")
		if len(f) >= 3 && (f[0] == want || f[2] == want) {
			return owner{f[0], f[2]}, nil
		}
	}
	return owner{}, fmt.Errorf("no such entry in %s", file)
}

func rangesOf(file string, o owner) ([]Range, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("userns-remap: %w", err)
	}
	all := parseSub(data)
	ranges := all[o.name]
	if o.id != "" && o.id != o.name {
		ranges = append(ranges, all[o.id]...)
	}
	return ranges, nil
}

// Where useradd(8) begins with subordinate ids, and how many it gives
// (login.defs(5)).
const (
	firstSub = 100000
	subCount = 65536
)

// grant gives an owner the first range after all others.
func grant(file, name string) (Range, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Range{}, fmt.Errorf("userns-remap: %w", err)
	}
	r := Range{firstSub, subCount}
	for _, list := range parseSub(data) {
		for _, o := range list {
			r.Start = max(r.Start, o.Start+o.Size)
		}
	}
	if uint64(r.Start)+uint64(r.Size) > autoFirst {
		return r, errs.New(errs.Invalid, "userns-remap: no room for a range of %s in %s: add one", name, file)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	data = append(data, name+":"+strconv.FormatUint(uint64(r.Start), 10)+":"+strconv.FormatUint(uint64(r.Size), 10)+"\n"...)
	if err := durable.Replace(file, data, 0o644); err != nil {
		return r, fmt.Errorf("userns-remap: %w", err)
	}
	return r, nil
}

package plan

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// IDMap says under which ids a bind mount shows the owners of its files, and
// under which it writes.
type IDMap struct {
	// User shows the owner of the source as the user of the container.
	User bool `json:",omitempty"`
	// Users and Groups are ranges; others are seen as nobody's.
	Users, Groups []IDRange `json:",omitempty"`
}

// IDRange shows Count ids from Host on as those from Container on.
type IDRange struct{ Host, Container, Count uint32 }

// mapOwners sets the maps of bind mounts, by target.
func (p *Plan) mapOwners(byTarget map[string]string) error {
	for _, target := range slices.Sorted(maps.Keys(byTarget)) {
		i := slices.IndexFunc(p.Mounts, func(m Mount) bool { return m.Type == typeBind && m.Target == path.Clean(target) })
		if i < 0 {
			return errs.New(errs.Invalid, "idmap: %s is not the target of a bind mount", target)
		}
		m, err := ParseIDMap(byTarget[target])
		if err != nil {
			return errs.New(errs.Invalid, "invalid mount config for type \"bind\": %w", err)
		}
		p.Mounts[i].IDMap = m
	}
	return nil
}

// ParseIDMap reads "user", or ranges HOST:CONTAINER:COUNT separated by
// semicolons, each of users ("u:" before it), groups ("g:") or both. Pure.
func ParseIDMap(text string) (*IDMap, error) {
	if text == "user" {
		return &IDMap{User: true}, nil
	}
	bad := func(part string) error {
		return errs.New(errs.Invalid, "invalid idmap %q: it has to be \"user\", or HOST:CONTAINER:COUNT with u: or g: before it for users or groups only, separated by semicolons", part)
	}
	m := &IDMap{}
	for _, part := range strings.Split(text, ";") {
		words := strings.Split(part, ":")
		users, groups := true, true
		if len(words) == 4 {
			users, groups = words[0] == "u", words[0] == "g"
			words = words[1:]
		}
		if len(words) != 3 || !users && !groups {
			return nil, bad(part)
		}
		var n [3]uint32
		for i, w := range words {
			v, err := strconv.ParseUint(w, 10, 31)
			if err != nil {
				return nil, bad(part)
			}
			n[i] = uint32(v)
		}
		r := IDRange{n[0], n[1], n[2]}
		if r.Count == 0 {
			return nil, bad(part)
		}
		if users {
			m.Users = append(m.Users, r)
		}
		if groups {
			m.Groups = append(m.Groups, r)
		}
	}
	if len(m.Users) == 0 || len(m.Groups) == 0 {
		return nil, errs.New(errs.Invalid, "invalid idmap %q: users and groups both need a range", text)
	}
	for _, list := range [][]IDRange{m.Users, m.Groups} {
		if overlap(list) {
			return nil, errs.New(errs.Invalid, "invalid idmap %q: its ranges overlap", text)
		}
	}
	return m, nil
}

func overlap(list []IDRange) bool {
	meet := func(a, an, b, bn uint32) bool {
		return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
	}
	for i, a := range list {
		for _, b := range list[:i] {
			if meet(a.Host, a.Count, b.Host, b.Count) || meet(a.Container, a.Count, b.Container, b.Count) {
				return true
			}
		}
	}
	return false
}

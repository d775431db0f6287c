// Package auth says who a client of the registry server is and what it may do:
// passwords (htpasswd, bcrypt), rights by repository, and bearer tokens, of the
// server's own token service or of somebody else's.
//
// Package registry asks it. It reads its files again when they change, writes
// only the key that tokens are signed with, and must not know HTTP or storage.
package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"gantry/internal/errs"
)

// An Action is what can be done with a repository.
type Action string

// The actions. Catalog is to list repositories, Admin to collect garbage: both
// are of the registry as a whole.
const (
	Pull    Action = "pull"
	Push    Action = "push"
	Delete  Action = "delete"
	Catalog Action = "*"
	Admin   Action = "admin"
)

// Options say who may do what.
type Options struct {
	// Htpasswd is a file of lines user:bcrypt; empty: there are no users.
	Htpasswd string
	// Rights is a YAML file of Rules; empty: every user may do everything.
	Rights string
	// Anonymous may pull everything, besides what Rights says.
	Anonymous bool
}

// A Rule gives users rights.
type Rule struct {
	// Users have the rights; "*" is everybody with a password, and
	// "anonymous" also those without.
	Users []string `yaml:"users"`
	// Repositories are patterns: * is within a part of a name, ** any number of
	// parts, and $user the user's name.
	Repositories []string `yaml:"repositories"`
	Actions      []Action `yaml:"actions"` // pull, push, delete, admin; "*" is all
}

// A Policy says who may do what. It is safe for concurrent use.
type Policy struct {
	o      Options
	users  file[map[string][]byte]
	rules  file[[]Rule]
	mu     sync.Mutex
	proven map[[32]byte]time.Time // passwords that were right a moment ago
	slots  chan struct{}
}

// Limits of passwords that are compared at once, and of how long and how many
// right ones are remembered.
const (
	bcryptAtOnce = 4
	provenFor    = time.Minute
	provenMax    = 10000
)

// Open reads the files of a policy. errs.Invalid if one is wrong.
func Open(o Options) (*Policy, error) {
	p := &Policy{o: o, proven: map[[32]byte]time.Time{}, slots: make(chan struct{}, bcryptAtOnce)}
	p.users = file[map[string][]byte]{path: o.Htpasswd, parse: parseUsers}
	p.rules = file[[]Rule]{path: o.Rights, parse: parseRules}
	if _, err := p.users.get(); err != nil {
		return nil, err
	}
	_, err := p.rules.get()
	return p, err
}

// Free reports whether there are no users: everybody may do everything.
func (p *Policy) Free() bool { return p.o.Htpasswd == "" && p.o.Rights == "" }

// Reload reads the files, changed or not. errs.Invalid if one is wrong.
func (p *Policy) Reload() error {
	p.users.forget()
	p.rules.forget()
	_, err := p.users.get()
	_, err2 := p.rules.get()
	return errors.Join(err, err2)
}

// A file is a value that is read from a file, again when that has changed.
type file[T any] struct {
	path  string
	parse func([]byte) (T, error)
	mu    sync.Mutex
	stamp string
	value T
	ready bool
}

// forget makes the next get read the file.
func (f *file[T]) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = false
}

// get returns the value. A file that has become wrong or is gone is an error: no
// right outlives it.
func (f *file[T]) get() (v T, err error) {
	if f.path == "" {
		return v, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fi, err := os.Stat(f.path)
	if err != nil {
		return v, err
	}
	stamp := fmt.Sprint(fi.ModTime().UnixNano(), fi.Size(), fi.Sys())
	if f.ready && stamp == f.stamp {
		return f.value, nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return v, err
	}
	if v, err = f.parse(data); err != nil {
		return v, errs.New(errs.Invalid, "%s: %w", f.path, err)
	}
	f.value, f.stamp, f.ready = v, stamp, true
	return v, nil
}

func parseUsers(data []byte) (map[string][]byte, error) {
	users := map[string][]byte{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("line %d is not user:hash", i+1)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: the hash of %s is not bcrypt (htpasswd -B): %w", i+1, user, err)
		}
		users[user] = []byte(hash)
	}
	return users, nil
}

func parseRules(data []byte) ([]Rule, error) {
	var doc struct {
		Rights []Rule `yaml:"rights"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	for i, r := range doc.Rights {
		if len(r.Users) == 0 || len(r.Actions) == 0 {
			return nil, fmt.Errorf("rule %d needs users and actions", i+1)
		}
		for _, a := range r.Actions {
			if !slices.Contains([]Action{Pull, Push, Delete, Catalog, Admin}, a) {
				return nil, fmt.Errorf("rule %d: action %q: must be pull, push, delete, admin or *", i+1, a)
			}
		}
		for _, pat := range r.Repositories {
			if _, err := path.Match(pat, ""); err != nil {
				return nil, fmt.Errorf("rule %d: pattern %q: %w", i+1, pat, err)
			}
		}
	}
	return doc.Rights, nil
}

// dummy is what the password of nobody is compared with, so that the time of an
// answer does not tell whether there is such a user.
const dummy = "$2a$10$7EqJtq98hPqEX7fNZaFWoOHi6DqcW5Q4cXb8CQz7GqgZQ0bD9Y5uW"

// Password checks a password: errs.Unauthenticated if it is wrong.
func (p *Policy) Password(user, password string) error {
	users, err := p.users.get()
	if err != nil {
		return err
	}
	hash, known := users[user]
	key := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %s", len(user), user, hash, password))
	p.mu.Lock()
	at, ok := p.proven[key]
	p.mu.Unlock()
	if known && ok && time.Since(at) < provenFor {
		return nil
	}
	if !known {
		hash = []byte(dummy)
	}
	p.slots <- struct{}{}
	err = bcrypt.CompareHashAndPassword(hash, []byte(password))
	<-p.slots
	if subtle.ConstantTimeEq(bit(known), 1) == 0 || err != nil {
		return errs.New(errs.Unauthenticated, "authentication required: wrong name or password")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= provenMax {
		clear(p.proven)
	}
	p.proven[key] = time.Now()
	return nil
}

func bit(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// Allows reports whether a user, "" for nobody, may do something with a
// repository, "" for the registry.
func (p *Policy) Allows(user, repository string, a Action) (bool, error) {
	if p.Free() {
		return true, nil
	}
	if p.o.Anonymous && (a == Pull || a == Catalog) {
		return true, nil
	}
	if p.o.Rights == "" {
		return user != "", nil
	}
	rules, err := p.rules.get()
	if err != nil {
		return false, err
	}
	for _, r := range rules {
		if r.covers(user, repository, a) {
			return true, nil
		}
	}
	// Whoever has a right somewhere may see the list of what he has rights to.
	return a == Catalog && user != "", nil
}

func (r Rule) covers(user, repository string, a Action) bool {
	if !slices.Contains(r.Actions, a) && !slices.Contains(r.Actions, Catalog) {
		return false
	}
	if !slices.ContainsFunc(r.Users, func(u string) bool {
		return u == "anonymous" || user != "" && (u == user || u == "*")
	}) {
		return false
	}
	if repository == "" {
		return a == Catalog || slices.Contains(r.Repositories, "**")
	}
	return slices.ContainsFunc(r.Repositories, func(pat string) bool {
		parts := strings.Split(pat, "/")
		for i, p := range parts {
			if p == "$user" {
				if parts[i] = user; user == "" || strings.ContainsAny(user, `*?[\/`) {
					return false
				}
			}
		}
		return match(parts, strings.Split(repository, "/"))
	})
}

// match matches parts of a name with parts of a pattern.
func match(pat, name []string) bool {
	for i, p := range pat {
		if p == "**" {
			for j := i; j <= len(name); j++ {
				if match(pat[i+1:], name[j:]) {
					return true
				}
			}
			return false
		}
		if i >= len(name) {
			return false
		}
		if ok, err := path.Match(p, name[i]); !ok || err != nil {
			return false
		}
	}
	return len(pat) == len(name)
}

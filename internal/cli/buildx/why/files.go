package why

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// File is a file of the context.
type File struct {
	Size  int64  `json:"s"`
	MTime int64  `json:"m"` // ns
	Mode  uint32 `json:"p"`
	Sum   string `json:"h,omitempty"` // of its content, if it was ever sent
}

// same reports whether two files are alike, as far as is known: by content if
// both sums are there, else by what the file system says.
func (f File) same(g File) bool {
	if f.Mode != g.Mode || f.Size != g.Size {
		return false
	}
	if f.Sum != "" && g.Sum != "" {
		return f.Sum == g.Sum
	}
	return f.MTime == g.MTime
}

// Carry gives files that are as they were the sums that are known of them.
func Carry(before, now map[string]File) {
	for p, f := range now {
		old, ok := before[p]
		if ok && f.Sum == "" && old.Size == f.Size && old.MTime == f.MTime {
			f.Sum = old.Sum
			now[p] = f
		}
	}
}

// maxNamed bounds how many files a reason names.
const maxNamed = 3

// files says which files that the step takes from the context are other ones.
func (c comparison) files() []string {
	sources, ok := contextSources(c.step.Text)
	if !ok || c.before.Files == nil || c.now.Files == nil {
		return nil
	}
	var changed []string
	for _, p := range slices.Sorted(maps.Keys(c.now.Files)) {
		if !taken(sources, p) {
			continue
		}
		was, had := c.before.Files[p]
		switch {
		case !had:
			changed = append(changed, p+" is new")
		case !was.same(c.now.Files[p]):
			changed = append(changed, p+" changed")
		}
	}
	for _, p := range slices.Sorted(maps.Keys(c.before.Files)) {
		if _, has := c.now.Files[p]; !has && taken(sources, p) {
			changed = append(changed, p+" is gone")
		}
	}
	if more := len(changed) - maxNamed; more > 0 {
		changed = append(changed[:maxNamed], fmt.Sprintf("and %d more", more))
	}
	return changed
}

// contextSources returns what an instruction takes from the context: the sources
// of COPY and ADD, and those of RUN's bind mounts. ok is false if it takes nothing.
func contextSources(text string) (sources []string, ok bool) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, false
	}
	verb := strings.ToUpper(words[0])
	rest := words[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "--") {
		if strings.HasPrefix(rest[0], "--from=") {
			return nil, false
		}
		if m, is := strings.CutPrefix(rest[0], "--mount="); is && verb == "RUN" {
			sources = append(sources, bindSource(m)...)
		}
		rest = rest[1:]
	}
	if verb == "RUN" {
		return sources, len(sources) > 0
	}
	if verb != "COPY" && verb != "ADD" {
		return nil, false
	}
	var list []string
	if json.Unmarshal([]byte(strings.Join(rest, " ")), &list) != nil {
		list = rest
	}
	if len(list) < 2 {
		return nil, false
	}
	for _, s := range list[:len(list)-1] {
		if strings.HasPrefix(s, "<<") || strings.Contains(s, "://") {
			continue
		}
		sources = append(sources, clean(s))
	}
	return sources, len(sources) > 0
}

// bindSource returns what a bind mount takes from the context.
func bindSource(m string) []string {
	src := "."
	for f := range strings.SplitSeq(m, ",") {
		switch k, v, _ := strings.Cut(f, "="); {
		case k == "type" && v != "bind", k == "from":
			return nil
		case k == "source" || k == "src":
			src = v
		}
	}
	return []string{clean(src)}
}

func clean(s string) string {
	return strings.TrimPrefix(path.Clean("/"+s), "/")
}

// taken reports whether p is one of sources or below one; they may be patterns.
func taken(sources []string, p string) bool {
	for _, s := range sources {
		if s == "" || p == s || strings.HasPrefix(p, s+"/") {
			return true
		}
		for q := p; q != "."; q = path.Dir(q) {
			if ok, err := path.Match(s, q); err == nil && ok {
				return true
			}
		}
		if strings.Contains(s, "**") && strings.HasPrefix(p, s[:strings.IndexByte(s, '*')]) {
			return true
		}
	}
	return false
}

// Dir is a directory of a context and what it holds.
type Dir struct {
	Path  string
	Bytes int64
	Files int
}

// Largest returns the n largest directories, everything below them counted; a
// directory that holds nothing but another one of the list is left out.
func Largest(files map[string]File, n int) []Dir {
	dirs := map[string]*Dir{}
	for p, f := range files {
		for d := path.Dir(p); ; d = path.Dir(d) {
			x := dirs[d]
			if x == nil {
				x = &Dir{Path: d}
				dirs[d] = x
			}
			x.Bytes += f.Size
			x.Files++
			if d == "." || d == "/" {
				break
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(dirs)) {
		d := dirs[p]
		if up := dirs[path.Dir(p)]; p != "." && up != nil && up.Files == d.Files && up.Path != "." {
			delete(dirs, up.Path)
		}
	}
	out := make([]Dir, 0, len(dirs))
	for _, d := range dirs {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Dir) int {
		if a.Bytes != b.Bytes {
			if a.Bytes > b.Bytes {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	return out[:min(n, len(out))]
}

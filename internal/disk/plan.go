package disk

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// A Budget bounds what images, build cache and logs occupy together: above
// High, the least recently used that nothing keeps goes until Low is reached.
// Both are in bytes; no High is no budget.
type Budget struct{ High, Low int64 }

// ParseBudget reads a budget as the configuration has it: SIZE or N% of the
// file system, whose size in bytes is total, and optionally ",low=" with
// another; without, low is nine tenths of the former. Empty text is no budget.
func ParseBudget(text string, total int64) (Budget, error) {
	if text == "" {
		return Budget{}, nil
	}
	bad := func(why string) (Budget, error) {
		return Budget{}, errs.New(errs.Invalid, "invalid disk budget %q: %s; write SIZE or N%%, and optionally ,low=SIZE or ,low=N%%", text, why)
	}
	high, low, two := strings.Cut(text, ",")
	b := Budget{}
	var err error
	if b.High, err = parseAmount(high, total); err != nil {
		return bad(err.Error())
	}
	b.Low = b.High / 10 * 9
	if two {
		v, ok := strings.CutPrefix(strings.TrimSpace(low), "low=")
		if !ok {
			return bad("unknown setting " + strconv.Quote(low))
		}
		if b.Low, err = parseAmount(v, total); err != nil {
			return bad(err.Error())
		}
	}
	if b.High <= 0 || b.Low > b.High && total > 0 {
		return bad("low must not be above high, and high not be 0")
	}
	return b, nil
}

func parseAmount(s string, total int64) (int64, error) {
	s = strings.TrimSpace(s)
	if p, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.ParseFloat(p, 64)
		if err != nil || n <= 0 || n > 100 {
			return 0, fmt.Errorf("%q is no percentage", s)
		}
		return max(int64(float64(total)*n/100), 1), nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return n, nil
}

const (
	kindImage = "image"
	kindCache = "build-cache"
)

// A candidate is something that could go.
type candidate struct {
	kind   string // kindImage or kindCache
	id     string
	name   string           // for people
	pieces map[string]int64 // bytes; what several share is there until the last goes
	used   time.Time        // when it was last of use
	keep   string           // why it stays; empty if it may go
	// Of build cache: what lies below it, by id, which can't go before it; and
	// whether it is the outcome of a step.
	parents []string
	layer   bool
	depth   int // how much lies below
}

// planRemovals chooses what goes, in order, when usage bytes are occupied, and
// returns what will be occupied then. Least recently used goes first; of equal
// age, by id. The image used last always stays: it is what somebody is about to
// use; so does the layer built or used last, with all below it. What would free nothing, since others that stay share all of it, is left
// alone. Pure.
func planRemovals(usage int64, b Budget, list []candidate) (remove []candidate, left int64) {
	if b.High <= 0 || usage <= b.High {
		return nil, usage
	}
	list = inOrder(list)
	newest := -1
	holders := map[string]int{} // of each piece
	kept := map[string]bool{}   // pieces that something that stays has
	for i, c := range list {
		if c.kind == kindImage {
			newest = i
		}
		for p := range c.pieces {
			holders[p]++
		}
	}
	for i, c := range list {
		if c.keep != "" || i == newest {
			for p := range c.pieces {
				kept[p] = true
			}
		}
	}
	left = usage
	for i, c := range list {
		if left <= b.Low {
			break
		}
		if c.keep != "" || i == newest {
			continue
		}
		useful := false
		for p, n := range c.pieces {
			useful = useful || n > 0 && !kept[p] && !strings.HasPrefix(p, "records ")
		}
		if !useful {
			continue
		}
		for p, n := range c.pieces {
			if holders[p]--; holders[p] == 0 {
				left -= n
			}
		}
		remove = append(remove, c)
	}
	return remove, left
}

package classic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// A translator tells the progress of a build graph, whose vertices run in any
// order, as the classic builder tells its steps, one after the other:
//
//	vertices, logs ─▶ state of each step ─▶ cursor ─▶ "Step 2/5 : …", " ---> …"
//
// What a later step says is kept until the cursor is there. The ids of steps
// stand for images that do not exist; only the last one is an image.
type translator struct {
	*script
	say    func(string)
	known  *memory
	keep   bool // don't say that containers are removed
	states []state
	seen   map[digest.Digest]int // the step of a vertex
	cursor int
	salt   string   // what else ids depend on: the platform
	fresh  bool     // nothing is taken from the cache
	inside bool     // the cursor's step has been announced
	ids    []string // by stage: the id after its last told step
	done   []bool   // by stage: all of it came from the cache so far
	moved  bool     // the container of the cursor's step has been told
	// triggers are those of an image, by its id; nil: it is not known of any.
	triggers func(id string) []string
	asked    map[int]bool // the steps whose image has been asked for them
}

// state is what is known of a step.
type state struct {
	vertex            string
	digest            string // of FROM's image
	started, finished bool
	cached            bool
	err               string
	logs              []line
}

type line struct {
	stream int
	data   string
}

func newTranslator(s *script, known *memory, say func(string)) *translator {
	return &translator{
		script: s, say: say, known: known, states: make([]state, len(s.steps)), seen: map[digest.Digest]int{},
		ids: make([]string, len(s.labels)), done: make([]bool, len(s.labels)), asked: map[int]bool{},
	}
}

// vertexName is how the frontend names what a step does: "[stage 2/5] RUN true".
var vertexName = regexp.MustCompile(`^\[(?:(\S+(?: \S+)*) )? *(\d+)/\d+\] (.*)$`)

// find returns the step that a vertex belongs to, -1 for none.
func (t *translator) find(name string) int {
	m := vertexName.FindStringSubmatch(name)
	if m == nil {
		return -1
	}
	label := m[1]
	if i := strings.LastIndexByte(label, ' '); i >= 0 { // a platform before it
		label = label[i+1:]
	}
	stage := -1
	for i, l := range t.labels {
		if l == label || len(t.labels) == 1 && label != "" && strings.Contains(label, "/") {
			stage = i
		}
	}
	if stage < 0 {
		return -1
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return -1
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(m[3], "ONBUILD "), "LINK ")
	word, _, _ := strings.Cut(rest, " ")
	return t.pick(stage, n-t.firsts[stage]+1, word, strings.HasPrefix(m[3], "ONBUILD "))
}

// pick returns the step of a stage by its number among the layers. A number
// that does not fit (triggers come first, and a working directory may be there)
// leaves the first one of that instruction that has no vertex yet.
func (t *translator) pick(stage, nth int, word string, trigger bool) int {
	spare := -1
	for i, s := range t.steps {
		if s.stage != stage {
			continue
		}
		if s.word == "FROM" && word == "FROM" {
			return i
		}
		if s.kind != layered || s.word != word || s.trigger != trigger {
			continue
		}
		if s.nth == nth {
			return i
		}
		if spare < 0 && t.states[i].vertex == "" {
			spare = i
		}
	}
	return spare
}

// order puts images before what is done with them.
func order(v *client.Vertex) int {
	if strings.Contains(v.Name, "] FROM ") {
		return 0
	}
	return 1
}

// status takes news.
func (t *translator) status(s *client.SolveStatus) {
	// What comes with an image changes the numbers of what follows, and is told
	// of after it.
	vertexes := slices.Clone(s.Vertexes)
	slices.SortStableFunc(vertexes, func(a, b *client.Vertex) int { return order(a) - order(b) })
	for _, v := range vertexes {
		i, ok := t.seen[v.Digest]
		if !ok {
			if i = t.find(v.Name); i < 0 {
				continue
			}
			t.seen[v.Digest] = i
		}
		st := &t.states[i]
		st.vertex = v.Digest.String()
		if _, d, ok := strings.Cut(v.Name, "@sha256:"); ok && t.steps[i].kind == fromImage {
			st.digest = d
			t.grow(i)
			st = &t.states[i]
		}
		st.started = st.started || v.Started != nil
		st.finished = v.Completed != nil
		st.cached = v.Cached
		st.err = v.Error
	}
	for _, l := range s.Logs {
		if i, ok := t.seen[l.Vertex]; ok && i >= 0 {
			t.states[i].logs = append(t.states[i].logs, line{l.Stream, string(l.Data)})
		}
	}
	t.advance()
}

// advance tells what can be told in order. The last step's end waits for the
// image.
func (t *translator) advance() {
	for t.cursor < len(t.steps) {
		t.enter()
		if t.cursor == len(t.steps)-1 || !t.over() {
			return
		}
		t.leave("")
	}
}

// over says whether the cursor's step has ended well.
func (t *translator) over() bool {
	s, st := &t.steps[t.cursor], &t.states[t.cursor]
	switch {
	case s.unused, s.kind == argument, s.kind == fromStage, s.kind == fromScratch, s.kind == config:
		return true
	case s.kind == fromImage && st.digest != "":
		return true
	case st.finished && st.err == "":
		return true
	case s.kind == fromImage && st.vertex == "":
		return false // its id is about to be known
	}
	// A later layer of the stage needs this one, so it is there.
	for i := t.cursor + 1; i < len(t.steps); i++ {
		if t.steps[i].stage == s.stage && t.states[i].started {
			return true
		}
	}
	return false
}

// enter announces the cursor's step, and tells what its command says.
func (t *translator) enter() {
	s, st := &t.steps[t.cursor], &t.states[t.cursor]
	if !t.inside {
		t.inside, t.moved = true, false
		if !s.trigger {
			n, of := t.number(t.cursor)
			t.say(fmt.Sprintf("Step %d/%d : %s", n, of, s.text))
			t.say("\n")
		}
	}
	if s.word == "RUN" && !t.moved && !s.unused && st.started && !st.cached {
		t.moved = true
		t.say(" ---> Running in " + t.container() + "\n")
	}
	for _, l := range st.logs {
		if l.stream == 2 { // red, as the classic builder has it
			t.say("\x1b[91m" + l.data + "\x1b[0m")
			continue
		}
		t.say(l.data)
	}
	st.logs = nil
}

// leave tells the end of the cursor's step; id is the image's, if it is the last.
func (t *translator) leave(id string) {
	s, st := &t.steps[t.cursor], &t.states[t.cursor]
	defer func() { t.cursor, t.inside = t.cursor+1, false }()
	if s.kind == argument {
		return
	}
	if s.unused {
		if s.word == "FROM" {
			t.say(" ---> Not needed\n")
		}
		return
	}
	parent := t.ids[s.stage]
	switch s.kind {
	case fromScratch:
		t.ids[s.stage], t.done[s.stage] = "", true
		t.say(" ---> \n")
		return
	case fromStage:
		id, t.done[s.stage] = t.ids[s.base], t.done[s.base]
	case fromImage:
		id, t.done[s.stage] = st.digest, true
	default:
		id = t.settle(s, st, parent, id)
	}
	t.ids[s.stage] = id
	switch {
	case s.triggers == 1:
		t.say("# Executing 1 build trigger\n")
	case s.triggers > 1:
		t.say(fmt.Sprintf("# Executing %d build triggers\n", s.triggers))
	case !s.trigger || s.last:
		t.say(" ---> " + short(id) + "\n")
	}
}

// settle tells whether a step was in the cache, and returns its id.
func (t *translator) settle(s *step, st *state, parent, id string) string {
	old, known := t.known.get(parent, t.salt+s.text)
	cached := known && t.done[s.stage] && !t.fresh
	if s.kind == layered {
		cached = st.cached || !st.started && !st.finished
	}
	switch {
	case cached:
		t.say(" ---> Using cache\n")
	case s.word == "RUN" || s.kind == config || s.word == "WORKDIR":
		if !t.moved {
			t.say(" ---> Running in " + t.container() + "\n")
		}
		if !t.keep {
			t.say(" ---> Removed intermediate container " + t.container() + "\n")
		}
	}
	t.done[s.stage] = t.done[s.stage] && cached
	if id == "" {
		if id = old; !cached || !known {
			id = sum(parent, t.salt+s.text, st.vertex, t.nonce(cached))
		}
	}
	t.known.put(parent, t.salt+s.text, id)
	return id
}

// nonce makes ids of steps that were carried out anew different from earlier
// ones.
func (t *translator) nonce(cached bool) string {
	if cached {
		return ""
	}
	return strconv.FormatInt(t.known.now().UnixNano(), 36)
}

// container is the name of a container that is not there to be looked at.
func (t *translator) container() string {
	s := &t.steps[t.cursor]
	return short(sum("container", t.ids[s.stage], s.text, strconv.Itoa(t.cursor)))
}

// base returns the id of the image that the last stage is built on, empty for
// none.
func (t *translator) base() string {
	for stage := len(t.labels) - 1; ; {
		for i, s := range t.steps {
			switch {
			case s.stage != stage || s.word != "FROM":
				continue
			case s.kind == fromImage && t.states[i].digest != "":
				return "sha256:" + t.states[i].digest
			case s.kind != fromStage:
				return ""
			}
			stage = s.base
			break
		}
	}
}

// finish tells the rest of a build that made an image.
func (t *translator) finish(imageID string) {
	for t.cursor < len(t.steps) {
		t.enter()
		id := ""
		if t.cursor == len(t.steps)-1 {
			id = strings.TrimPrefix(imageID, "sha256:")
		}
		t.leave(id)
	}
}

// stop tells what there is of a build that failed, as far as the step to blame,
// and returns that step, nil if it is none.
func (t *translator) stop() *step {
	bad := -1
	for i, st := range t.states {
		if st.err != "" && (bad < 0 || !strings.Contains(st.err, "canceled") && strings.Contains(t.states[bad].err, "canceled")) {
			bad = i
		}
	}
	if bad < 0 { // before the graph was there: the first image, most likely
		t.advance()
		if t.cursor < len(t.steps) {
			return &t.steps[t.cursor]
		}
		return nil
	}
	for t.cursor < bad {
		t.enter()
		t.leave("")
	}
	if t.cursor == bad {
		t.states[bad].started = true
		t.enter()
	}
	return &t.steps[bad]
}

func short(id string) string { return id[:min(12, len(id))] }

func sum(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(h[:])
}

// memorySize is how many steps are remembered, to call them the same again.
const memorySize = 8192

// A memory remembers the ids of steps, so that a step which is in the cache is
// called as before. It lasts as long as the daemon.
type memory struct {
	now func() time.Time
	mu  sync.Mutex
	ids map[string]string
}

func newMemory() *memory { return &memory{now: time.Now, ids: map[string]string{}} }

func (m *memory) get(parent, text string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.ids[parent+"\x00"+text]
	return id, ok
}

func (m *memory) put(parent, text, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) >= memorySize {
		clear(m.ids)
	}
	m.ids[parent+"\x00"+text] = id
}

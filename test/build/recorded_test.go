package build_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// An exchange is a POST /build that was recorded against Docker Engine 29.
type exchange struct {
	Note       string
	Path       string
	Headers    map[string]string
	Dockerfile *string
	Body       *string // instead of a context
	Status     int
	Lines      []string
}

// meant are the answers that differ for a reason: by note, the line that the
// answer has, "" for any.
var meant = map[string]string{
	// What the classic builder of Docker can't do, this one can.
	"RUN --mount needs BuildKit": `{"stream":"Successfully built `,
	"COPY --chmod":               `{"stream":"Successfully built `,
	// Docker's ignores the document.
	"heredoc": `{"stream":"hi\n"}`,
	// A limit below what the kernel can do is for the step to fail with, and the
	// steps come from the cache here as there.
	"memory too low": `{"stream":"Successfully built `,
	// The image of that name is taken as it is, as BuildKit does.
	"platform not available locally": `{"stream":"Successfully built `,
	// The controller's own trace is not compared, only its end.
	"version=2 without a session": `"moby.image.id"`,
}

// TestRecordedBuilds sends what was recorded, in its order, and compares the
// streams line by line. IDs stand for themselves: what was the same is the same.
func TestRecordedBuilds(t *testing.T) {
	f, err := os.Open("testdata/recorded.jsonl")
	must(t, err)
	defer f.Close()
	d := testkit.StartBusybox(t)
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		var e exchange
		must(t, json.Unmarshal(sc.Bytes(), &e))
		ids := newIDs()
		status, got := send(t, d, e)
		if status != e.Status {
			t.Errorf("%s: status %d, want %d\n%s", e.Note, status, e.Status, got)
			continue
		}
		if line, ok := meant[e.Note]; ok {
			if !strings.Contains(got, line) {
				t.Errorf("%s: no %s in\n%s", e.Note, line, got)
			}
			continue
		}
		want := strings.Join(e.Lines, "\n")
		if a, b := ids.hide(joinLogs(want)), newIDs().hide(joinLogs(strings.ReplaceAll(strings.TrimSpace(got), "\r", ""))); a != b {
			t.Errorf("%s: got\n%s\nwant\n%s", e.Note, b, a)
		}
	}
	if n < 35 {
		t.Errorf("%d exchanges", n)
	}
}

func send(t *testing.T, d *testkit.Daemon, e exchange) (int, string) {
	var body io.Reader
	if e.Body != nil {
		body = strings.NewReader(*e.Body)
	} else {
		body = contextTar(t, e.Dockerfile)
	}
	req, err := http.NewRequest(http.MethodPost, "http://gantry"+e.Path, body)
	must(t, err)
	for k, v := range e.Headers {
		req.Header.Set(k, v)
	}
	resp, err := d.Client().Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// contextTar is the context of the recordings: a Dockerfile and a file f.
func contextTar(t *testing.T, dockerfile *string) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(name, data string) {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, data)
		must(t, err)
	}
	if dockerfile != nil {
		put("Dockerfile", *dockerfile)
	}
	put("f", "content\n")
	must(t, w.Close())
	return &buf
}

var (
	idForms = regexp.MustCompile(`<(?:hex12-\d+|id\d+:12|id\d+)>|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b`)
	redLine = regexp.MustCompile(`\{"stream":"\\u001b\[91m(.*?)\\u001b\[0m"\}`)
)

// ids names IDs by the order of their first appearance; a short one is the
// beginning of a long one.
type ids struct{ seen []string }

func newIDs() *ids { return &ids{} }

func (l *ids) hide(s string) string {
	return idForms.ReplaceAllStringFunc(s, func(id string) string {
		key := strings.TrimSuffix(strings.Trim(id, "<>"), ":12")
		if len(key) == 64 {
			key = key[:12]
		}
		i := slices.Index(l.seen, key)
		if i < 0 {
			i = len(l.seen)
			l.seen = append(l.seen, key)
		}
		return string(rune('A' + i))
	})
}

// joinLogs makes one line of what a command says on its standard error, which
// comes in as many pieces as it likes.
func joinLogs(s string) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if m := redLine.FindStringSubmatch(line); m != nil {
			if n := len(out); n > 0 && strings.HasPrefix(out[n-1], "red ") {
				out[n-1] += m[1]
			} else {
				out = append(out, "red "+m[1])
			}
			continue
		}
		n := len(out)
		if n > 0 && strings.HasPrefix(out[n-1], "red ") && strings.HasPrefix(line, `{"stream":"`) && !strings.Contains(line, " ---") {
			out = append(out[:n-1], line, out[n-1]) // the two streams come in any order
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

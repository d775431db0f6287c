// Command record turns recordings of a Docker Engine's API into the fixtures of
// the test beside it: one JSON file a section, with the requests in order and
// what was answered. It is run by hand when the recordings change:
//
//	go run ./test/api/record <folder of .http files> test/api/testdata
//
// Of the exchanges whose connection becomes a stream, only starts of execs are
// kept.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An exchange is one request and its answer. Its form is shared with the test.
type exchange struct {
	Note    string      `json:",omitempty"`
	Setup   bool        `json:",omitempty"` // not compared, but for its status
	Stream  bool        `json:",omitempty"` // the connection becomes a stream, whose content is not compared
	Method  string      `json:",omitempty"`
	Path    string      `json:",omitempty"`
	Headers [][2]string `json:",omitempty"`
	Body    string      `json:",omitempty"`

	Status     int
	Answer     [][2]string `json:",omitempty"` // headers in order, if they were recorded
	AnswerBody string      `json:",omitempty"`
}

var (
	setupLine  = regexp.MustCompile(`^# setup: (\S+) (\S+) ?(.*?) -> (\d+)`)
	statusLine = regexp.MustCompile(`^HTTP/1\.[01] (\d+)`)
	lineEnd    = regexp.MustCompile(` \[(LF|CRLF)\]$`)
	unquoted   = regexp.MustCompile(`(: )(<[a-z0-9]+>)(,?)$`)
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: record <folder of .http files> <folder of fixtures>")
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.http"))
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			log.Fatal(err)
		}
		// What a name server without a network says is not compared.
		list := slices.DeleteFunc(convert(data), func(e exchange) bool { return strings.Contains(e.AnswerBody, "dial tcp: lookup ") })
		name := strings.TrimSuffix(filepath.Base(f), ".http")
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		for _, e := range list {
			if err := enc.Encode(e); err != nil {
				log.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(os.Args[2], name+".jsonl"), out.Bytes(), 0o644); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d exchanges\n", name, len(list))
	}
}

// A reader goes through one recording.
type reader struct {
	list   []exchange
	cur    *exchange
	note   string
	state  string // request, body, head, answer
	stream bool
	talks  bool // the client sends something on the stream
	whole  bool // the answer has been seen to its end
	answer []string
}

func convert(data []byte) []exchange {
	r := &reader{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		r.line(sc.Text())
	}
	r.finish()
	return r.list
}

func (r *reader) line(l string) {
	switch {
	case strings.HasPrefix(l, "# setup: "):
		r.finish()
		r.setup(l)
	case strings.HasPrefix(l, "# "):
		r.finish()
		r.note = strings.TrimPrefix(l, "# ")
	case strings.HasPrefix(l, "--- framing:"):
		r.whole = true
	case strings.HasPrefix(l, "==="):
		r.stream, r.talks = true, true
	case strings.Contains(l, " FRAME "), strings.HasPrefix(l, "<<< RAW"):
		r.stream = true
	case strings.HasPrefix(l, ">>>"):
		r.request(strings.TrimPrefix(strings.TrimPrefix(l, ">>>"), " "))
	case strings.HasPrefix(l, "<<<"):
		r.answerLine(strings.TrimPrefix(strings.TrimPrefix(l, "<<<"), " "))
	}
}

func (r *reader) setup(l string) {
	m := setupLine.FindStringSubmatch(l)
	if m == nil {
		return
	}
	if strings.HasPrefix(m[3], "<") {
		if !strings.Contains(m[2], "/images/load") {
			return // its body was not recorded
		}
		m[3] = "<busybox>" // the test's own
	}
	status, _ := strconv.Atoi(m[4])
	r.list = append(r.list, exchange{Setup: true, Method: m[1], Path: m[2], Body: m[3], Status: status})
}

func (r *reader) request(l string) {
	if r.state != "request" && r.state != "body" {
		r.finish()
		r.cur, r.state, r.talks = &exchange{Note: r.note}, "request", false
		r.note = ""
		method, rest, _ := strings.Cut(l, " ")
		path, body, _ := strings.Cut(rest, " ")
		r.cur.Method, r.cur.Path = method, path
		if body = strings.TrimSpace(body); !strings.HasPrefix(body, "HTTP/") {
			r.cur.Body = body
			if body != "" {
				r.cur.Headers = [][2]string{{"Content-Type", "application/json"}}
			}
		} else if body != "HTTP/1.1" {
			r.stream = true // not for a table
		}
		return
	}
	if l == "" && r.state == "request" {
		r.state = "body"
		return
	}
	if r.state == "body" {
		r.cur.Body += l
		return
	}
	if k, v, ok := strings.Cut(l, ": "); ok {
		r.cur.Headers = append(r.cur.Headers, [2]string{k, v})
	} else {
		r.cur.Headers = append(r.cur.Headers, [2]string{strings.TrimSuffix(l, ":"), ""})
	}
}

func (r *reader) answerLine(l string) {
	if r.cur == nil {
		return
	}
	switch r.state {
	case "request", "body":
		if m := statusLine.FindStringSubmatch(l); m != nil {
			r.cur.Status, _ = strconv.Atoi(m[1])
			r.state = "head"
		} else {
			r.stream = true
		}
	case "head":
		if l == "" {
			r.state = "answer"
		} else if k, v, ok := strings.Cut(l, ": "); ok && !strings.HasPrefix(l, "{") && !strings.HasPrefix(l, "(") {
			r.cur.Answer = append(r.cur.Answer, [2]string{k, v})
		} else {
			r.state = "compact" // the short form, without the other headers
			r.answer = append(r.answer, l)
		}
	default:
		r.answer = append(r.answer, l)
	}
}

// finish stores the exchange that ends here.
func (r *reader) finish() {
	if r.cur == nil {
		return
	}
	e, stream := r.cur, r.stream
	short := r.state == "compact" || r.state == "head"
	if !short && !r.whole {
		stream = true // it was still being sent when something else was done
	}
	r.whole = false
	text := join(r.answer)
	r.cur, r.state, r.stream, r.answer = nil, "", false, nil
	if strings.HasSuffix(e.Path, "/start") && strings.Contains(e.Path, "/exec/") && !r.talks && (stream || e.Status == 101) {
		// Later requests look at what it does.
		r.list = append(r.list, exchange{Stream: true, Method: e.Method, Path: e.Path, Headers: e.Headers, Body: e.Body, Status: e.Status})
		return
	}
	if strings.HasPrefix(e.Body, "(") {
		return // its body was not recorded
	}
	if stream || e.Status == 0 || e.Status == 101 || e.Status == 100 {
		return
	}
	if short {
		// Only the type was kept.
		e.Answer = nil
	}
	e.AnswerBody = text
	r.list = append(r.list, *e)
}

// join puts an answer's body together again.
func join(lines []string) string {
	var b strings.Builder
	pretty := false
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "(pretty-printed"):
			pretty = true
		case strings.HasPrefix(l, "("):
			return "" // not recorded as text
		case pretty:
			b.WriteString(unquoted.ReplaceAllString(l, `$1"$2"$3`))
		default:
			m := lineEnd.FindStringSubmatch(l)
			b.WriteString(lineEnd.ReplaceAllString(l, ""))
			if m != nil && m[1] == "CRLF" {
				b.WriteString("\r")
			}
			if m != nil {
				b.WriteString("\n")
			}
		}
	}
	if pretty {
		var c bytes.Buffer
		if json.Compact(&c, []byte(b.String())) == nil {
			return c.String() + "\n"
		}
	}
	return b.String()
}

package driver

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/internal/plan"
)

// splunk posts to a Splunk HTTP Event Collector.
type splunk struct {
	client  *http.Client
	url     string
	token   string
	channel string // for collectors with index acknowledgment
	base    splunkEvent
	format  string
	tag     string
	attrs   map[string]string
	prefix  string // of raw events
	level   int    // of gzip
	gzip    bool
}

type splunkEvent struct {
	Event      any    `json:"event"`
	Time       string `json:"time"`
	Host       string `json:"host"`
	Source     string `json:"source,omitempty"`
	SourceType string `json:"sourcetype,omitempty"`
	Index      string `json:"index,omitempty"`
}

type splunkLine struct {
	Line   any               `json:"line"`
	Source string            `json:"source"`
	Tag    string            `json:"tag,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
}

func newSplunk(info plan.LogInfo) (Sender, error) {
	o := info.Options
	address, err := splunkURL(o)
	if err != nil {
		return nil, err
	}
	token, ok := o["splunk-token"]
	if !ok {
		return nil, fmt.Errorf("splunk: splunk-token is expected")
	}
	s := &splunk{url: address, token: token, format: o["splunk-format"], level: gzip.DefaultCompression}
	s.base = splunkEvent{Source: o["splunk-source"], SourceType: o["splunk-sourcetype"], Index: o["splunk-index"]}
	if s.base.Host, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("splunk: cannot access hostname to set source field")
	}
	if s.attrs, err = info.Attrs(); err != nil {
		return nil, err
	}
	if t, ok := o["tag"]; !ok || t != "" {
		if s.tag, err = info.Tag("{{.ID}}"); err != nil {
			return nil, err
		}
	}
	switch s.format {
	case "":
		s.format = "inline"
	case "inline", "json", "raw":
	default:
		return nil, fmt.Errorf("unknown format specified %s, supported formats are inline, json and raw", s.format)
	}
	if s.tag != "" {
		s.prefix = s.tag + " "
	}
	for _, k := range slices.Sorted(maps.Keys(s.attrs)) {
		s.prefix += k + "=" + s.attrs[k] + " "
	}
	return s, s.configure(o)
}

// configure reads the options about the connection.
func (s *splunk) configure(o map[string]string) error {
	tls, err := tlsConfig(o["splunk-capath"], "", "")
	if err != nil {
		return err
	}
	tls.ServerName = o["splunk-caname"]
	acks := false
	for k, to := range map[string]*bool{
		"splunk-insecureskipverify": &tls.InsecureSkipVerify, "splunk-gzip": &s.gzip, "splunk-index-acknowledgment": &acks,
	} {
		if v, ok := o[k]; ok {
			if *to, err = strconv.ParseBool(v); err != nil {
				return err
			}
		}
	}
	if v, ok := o["splunk-verify-connection"]; ok {
		if _, err := strconv.ParseBool(v); err != nil {
			return err
		}
	}
	if v, ok := o["splunk-gzip-level"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return err
		}
		if n < gzip.DefaultCompression || n > gzip.BestCompression {
			return fmt.Errorf("not supported level '%s' for splunk-gzip-level (supported values between %d and %d)", v, gzip.DefaultCompression, gzip.BestCompression)
		}
		s.level = n
	}
	if acks {
		id := make([]byte, 16)
		_, _ = rand.Read(id)
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a random UUID, RFC 9562
		s.channel = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	}
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: tls, Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}}
	return nil
}

func splunkURL(o map[string]string) (string, error) {
	text, ok := o["splunk-url"]
	if !ok {
		return "", fmt.Errorf("splunk: splunk-url is expected")
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("splunk: failed to parse %s as url value in splunk-url", text)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
	}
	u.Path = "/services/collector/event/1.0"
	return u.String(), nil
}

// Doubt is zero: the collector answers.
func (s *splunk) Doubt() time.Duration { return 0 }

func (s *splunk) render(b *bytes.Buffer, batch []Message) error {
	out := json.NewEncoder(b)
	for i := range batch {
		m := &batch[i]
		if len(bytes.TrimSpace(m.Line)) == 0 {
			continue // the collector refuses the whole batch for one that is empty
		}
		e := s.base
		ns := m.Time.UnixNano()
		e.Time = fmt.Sprintf("%d.%06d", ns/1e9, ns%1e9/1e3)
		switch {
		case s.format == "raw":
			e.Event = s.prefix + string(m.Line)
		case s.format == "json" && json.Valid(m.Line):
			e.Event = splunkLine{json.RawMessage(m.Line), m.Stream, s.tag, s.attrs}
		default:
			e.Event = splunkLine{string(m.Line), m.Stream, s.tag, s.attrs}
		}
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *splunk) Send(ctx context.Context, batch []Message) error {
	var b bytes.Buffer
	if err := s.render(&b, batch); err != nil || b.Len() == 0 {
		return err
	}
	if s.gzip {
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, s.level)
		if err != nil {
			return err
		}
		if _, err := z.Write(b.Bytes()); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		b = packed
	}
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, &b)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Splunk "+s.token)
	if s.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if s.channel != "" {
		req.Header.Set("X-Splunk-Request-Channel", s.channel)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("splunk: failed to send event - %s - %s", res.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

func (s *splunk) Finish(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

package plan

import (
	"bytes"
	"encoding/json"
	"os"
	"path"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// LogInfo is what a log driver may tell of a container. Its methods without
// arguments are what the option "tag" can use.
type LogInfo struct {
	Driver        string
	Options       map[string]string
	ContainerID   string
	ContainerName string // without the slash
	Image         string // as the user called it
	ImageDigest   string
	Created       time.Time
	Args          []string
	Labels        map[string]string
	Environ       []string
}

// LogInfo returns what log drivers may tell of the container.
func (p *Plan) LogInfo(id, name string) LogInfo {
	return LogInfo{
		Driver: p.Log.Driver, Options: p.Log.Options, ContainerID: id, ContainerName: name,
		Image: p.Config.Image, ImageDigest: p.ImageDigest, Args: p.Process.Args, Labels: p.Labels, Environ: p.Process.Env,
	}
}

func head(s string, n int) string { return s[:min(len(s), n)] }

// ID is the container's short ID.
func (i LogInfo) ID() string { return head(i.ContainerID, 12) }

// FullID is the container's ID.
func (i LogInfo) FullID() string { return i.ContainerID }

// Name is the container's name without a slash.
func (i LogInfo) Name() string { return i.ContainerName }

// ImageID is the beginning of the image's ID, "sha256:" and five digits, as in Docker.
func (i LogInfo) ImageID() string { return head(i.ImageDigest, 12) }

// ImageFullID is the image's ID.
func (i LogInfo) ImageFullID() string { return i.ImageDigest }

// ImageName is what the user called the image.
func (i LogInfo) ImageName() string { return i.Image }

// Command is the container's command line.
func (i LogInfo) Command() string { return strings.Join(i.Args, " ") }

// DaemonName is "docker", which templates written for it expect.
func (i LogInfo) DaemonName() string { return "docker" }

// Hostname is the host's name.
func (i LogInfo) Hostname() (string, error) { return os.Hostname() }

// Tag renders the option "tag", or the template byDefault where there is none.
func (i LogInfo) Tag(byDefault string) (string, error) {
	text := i.Options["tag"]
	if text == "" {
		text = byDefault
	}
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New("log-tag").Funcs(tagFunctions()).Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, i); err != nil {
		return "", err
	}
	return b.String(), nil
}

func tagFunctions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"split": strings.Split,
		"join":  strings.Join,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", min(max(before, 0), 1000)) + s + strings.Repeat(" ", min(max(after, 0), 1000))
		},
		"truncate": func(s string, n int) string { return head(s, max(n, 0)) },
		"println":  func(s string) string { return s + "\n" },
		"base":     path.Base,
	}
}

// Attrs are the labels and variables that the user wants with each line: those
// that the options "labels", "labels-regex", "env" and "env-regex" name, and
// with the file drivers the tag, if there is one.
func (i LogInfo) Attrs() (map[string]string, error) {
	out := map[string]string{}
	env := make(map[string]string, len(i.Environ))
	for _, kv := range i.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	for _, from := range []struct {
		values map[string]string
		option string
	}{{i.Labels, "labels"}, {env, "env"}} {
		for _, k := range split(i.Options[from.option]) {
			if v, ok := from.values[k]; ok {
				out[k] = v
			}
		}
		expr := i.Options[from.option+"-regex"]
		if expr == "" {
			continue
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, err
		}
		for k, v := range from.values {
			if re.MatchString(k) {
				out[k] = v
			}
		}
	}
	if i.Driver == LogJSON || i.Driver == LogLocal {
		tag, err := i.Tag("")
		if err != nil {
			return nil, err
		}
		if tag != "" {
			out["tag"] = tag
		}
	}
	return out, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

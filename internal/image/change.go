package image

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Change applies lines of a Dockerfile, as --change of import and commit give
// them, to an image's configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
// LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR. A value may hold
// several lines. Anything else is errs.Invalid.
//
// Format: the Dockerfile reference.
func Change(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, text := range changes {
		for line := range strings.Lines(joinContinued(text)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			word, rest := cutSpace(line)
			word = strings.ToUpper(word)
			apply, ok := changeCommands[word]
			if !ok {
				return errs.New(errs.Invalid, "%s is not a valid change command", word)
			}
			if rest == "" {
				return errs.New(errs.Invalid, "%s requires at least one argument", word)
			}
			if err := apply(c, rest); err != nil {
				return err
			}
		}
	}
	return nil
}

// joinContinued joins lines that end in a backslash with the next.
func joinContinued(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.ReplaceAll(text, "\\\n", "")
}

// cutSpace cuts s at its first run of white space.
func cutSpace(s string) (before, after string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

var changeCommands = map[string]func(*dockerspec.DockerOCIImageConfig, string) error{
	"CMD":         changeCmd,
	"ENTRYPOINT":  changeEntrypoint,
	"ENV":         changeEnv,
	"EXPOSE":      changeExpose,
	"HEALTHCHECK": changeHealthcheck,
	"LABEL":       changeLabel,
	"ONBUILD":     changeOnbuild,
	"SHELL":       changeShell,
	"STOPSIGNAL":  func(c *dockerspec.DockerOCIImageConfig, v string) error { c.StopSignal = v; return nil },
	"USER":        func(c *dockerspec.DockerOCIImageConfig, v string) error { c.User = v; return nil },
	"VOLUME":      changeVolume,
	"WORKDIR":     changeWorkdir,
}

// jsonWords reads v as a JSON list of strings.
func jsonWords(v string) ([]string, bool) {
	var words []string
	if !strings.HasPrefix(v, "[") || json.Unmarshal([]byte(v), &words) != nil {
		return nil, false
	}
	return words, true
}

// command reads the two forms of a command: a JSON list, or a line for a shell.
func command(c *dockerspec.DockerOCIImageConfig, v string) []string {
	if words, ok := jsonWords(v); ok {
		return words
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), v)
}

func changeCmd(c *dockerspec.DockerOCIImageConfig, v string) error {
	c.Cmd = command(c, v)
	return nil
}

// changeEntrypoint also drops the command, which was made for another one.
func changeEntrypoint(c *dockerspec.DockerOCIImageConfig, v string) error {
	c.Entrypoint, c.Cmd = command(c, v), nil
	return nil
}

func changeShell(c *dockerspec.DockerOCIImageConfig, v string) error {
	words, ok := jsonWords(v)
	if !ok {
		return errs.New(errs.Invalid, "SHELL requires the arguments to be in JSON form")
	}
	c.Shell = words
	return nil
}

func changeEnv(c *dockerspec.DockerOCIImageConfig, v string) error {
	pairs, err := keyValues("ENV", v)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		value := p[0] + "=" + p[1]
		i := slices.IndexFunc(c.Env, func(e string) bool { k, _, _ := strings.Cut(e, "="); return k == p[0] })
		if i >= 0 {
			c.Env[i] = value
		} else {
			c.Env = append(c.Env, value)
		}
	}
	return nil
}

func changeLabel(c *dockerspec.DockerOCIImageConfig, v string) error {
	pairs, err := keyValues("LABEL", v)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		c.Labels[p[0]] = p[1]
	}
	return nil
}

func changeExpose(c *dockerspec.DockerOCIImageConfig, v string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for word := range strings.FieldsSeq(v) {
		ports, proto, _ := strings.Cut(word, "/")
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		known := slices.Contains([]string{"", "tcp", "udp", "sctp"}, strings.ToLower(proto))
		if err != nil || err2 != nil || to < from || !known {
			return errs.New(errs.Invalid, "invalid containerPort: %s", word)
		}
		for n := from; n <= to; n++ {
			text := strconv.FormatUint(n, 10)
			if proto != "" {
				text += "/" + proto
			}
			p, err := wire.ParsePort(text)
			if err != nil {
				return errs.New(errs.Invalid, "invalid containerPort: %s", word)
			}
			c.ExposedPorts[p.String()] = struct{}{}
		}
	}
	return nil
}

func changeVolume(c *dockerspec.DockerOCIImageConfig, v string) error {
	paths, ok := jsonWords(v)
	if !ok {
		paths = strings.Fields(v)
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, p := range paths {
		if p = strings.TrimSpace(p); p == "" {
			return errs.New(errs.Invalid, "VOLUME specified can not be an empty string")
		}
		c.Volumes[p] = struct{}{}
	}
	return nil
}

func changeWorkdir(c *dockerspec.DockerOCIImageConfig, v string) error {
	switch {
	case strings.HasPrefix(v, "/"):
		c.WorkingDir = v
	case c.WorkingDir == "":
		c.WorkingDir = "/" + v
	default:
		c.WorkingDir = strings.TrimSuffix(c.WorkingDir, "/") + "/" + v
	}
	return nil
}

func changeOnbuild(c *dockerspec.DockerOCIImageConfig, v string) error {
	word, _ := cutSpace(v)
	switch word = strings.ToUpper(word); word {
	case "ONBUILD":
		return errs.New(errs.Invalid, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return errs.New(errs.Invalid, "%s isn't allowed as an ONBUILD trigger", word)
	}
	c.OnBuild = append(c.OnBuild, v)
	return nil
}

func changeHealthcheck(c *dockerspec.DockerOCIImageConfig, v string) error {
	h := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(v, "--") {
		var flag string
		flag, v = cutSpace(v)
		if err := healthFlag(h, flag); err != nil {
			return err
		}
	}
	kind, rest := cutSpace(v)
	switch kind = strings.ToUpper(kind); {
	case kind == "NONE" && rest != "":
		return errs.New(errs.Invalid, "HEALTHCHECK NONE takes no arguments")
	case kind == "NONE":
		h.Test = []string{"NONE"}
	case kind != "CMD":
		return errs.New(errs.Invalid, "Unknown type %q in HEALTHCHECK (try CMD)", kind)
	case rest == "":
		return errs.New(errs.Invalid, "Missing command after HEALTHCHECK CMD")
	default:
		if words, ok := jsonWords(rest); ok {
			h.Test = append([]string{"CMD"}, words...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	}
	c.Healthcheck = h
	return nil
}

// healthFlag reads one option of HEALTHCHECK.
func healthFlag(h *dockerspec.HealthcheckConfig, flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return errs.New(errs.Invalid, "--retries must be at least 1 (not %s)", value)
		}
		h.Retries = n
		return nil
	}
	durations := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}
	at, ok := durations[name]
	if !ok {
		return errs.New(errs.Invalid, "unknown flag: %s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return errs.New(errs.Invalid, "--%s: %w", name, err)
	}
	if d != 0 && d < time.Millisecond {
		return errs.New(errs.Invalid, "Interval %q cannot be less than 1ms", name)
	}
	*at = d
	return nil
}

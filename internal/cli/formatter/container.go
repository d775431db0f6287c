package formatter

import (
	"io"
	"net"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/cli/ref"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// ContainerContext is a row of ps.
type ContainerContext struct {
	c     *wire.ContainerSummary
	trunc bool
	now   time.Time
}

// Containers makes rows of list.
func Containers(list []wire.ContainerSummary, o RowOptions) []*ContainerContext {
	out := make([]*ContainerContext, len(list))
	for i := range list {
		out[i] = &ContainerContext{c: &list[i], trunc: o.Trunc, now: o.Now}
	}
	return out
}

// ContainerTable describes ps.
func ContainerTable(o TableOptions) Table[*ContainerContext] {
	t := Table[*ContainerContext]{
		Columns: []Column[*ContainerContext]{
			{"CONTAINER ID", (*ContainerContext).ID}, {"IMAGE", (*ContainerContext).Image},
			{"COMMAND", (*ContainerContext).Command}, {"CREATED", (*ContainerContext).RunningFor},
			{"STATUS", (*ContainerContext).Status}, {"PORTS", (*ContainerContext).Ports}, {"NAMES", (*ContainerContext).Names},
		},
		Headers: map[string]string{
			"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
			"RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS",
			"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
		},
	}
	if o.Size {
		t.Columns = append(t.Columns, Column[*ContainerContext]{"SIZE", (*ContainerContext).Size})
	}
	return t
}

// CheckContainers tells whether a format of ps can be used at all, which shows
// before anything is asked of the daemon, and also for an empty list.
func CheckContainers(format string) error {
	if format == "" || format == tableKey || format == jsonKey {
		return nil
	}
	tmpl, err := template.New("").Funcs(functions()).Parse(format)
	if err != nil {
		return errs.New(errs.Invalid, "failed to parse template: %w", err)
	}
	sample := Containers([]wire.ContainerSummary{{}}, RowOptions{})
	if err := tmpl.Execute(io.Discard, sample[0]); err != nil {
		return errs.New(errs.Invalid, "failed to execute template: %w", err)
	}
	return nil
}

// ShowsSize reports whether a format of ps shows sizes, which cost the daemon time.
func ShowsSize(format string) bool {
	if format == "" || strings.Contains(format, ".Size") {
		return format != ""
	}
	// Or an action that has the whole row in it.
	whole := regexp.MustCompile(`json +\.\s*[}|)]|\{\{-?\s*\.\s*(\||-?\}\})`)
	return whole.MatchString(format)
}

// ID of the container.
func (c *ContainerContext) ID() string {
	if c.trunc {
		return ShortID(c.c.ID)
	}
	return c.c.ID
}

// Names without the slash; the shortened form leaves out names from links.
func (c *ContainerContext) Names() string {
	var out []string
	for _, n := range c.c.Names {
		n = strings.TrimPrefix(n, "/")
		if c.trunc && !strings.Contains(n, "/") {
			return n
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

// Image as it was named at creation; the shortened form has no digest.
func (c *ContainerContext) Image() string {
	img := c.c.Image
	if img == "" {
		return "<no image>"
	}
	if !c.trunc {
		return img
	}
	if short := ShortID(img); short == ShortID(c.c.ImageID) {
		return short
	}
	if n, err := ref.Parse(img); err == nil && n.Digest != "" {
		n.Digest = ""
		return n.String()
	}
	return img
}

// Command in quotes.
func (c *ContainerContext) Command() string {
	s := c.c.Command
	if c.trunc {
		s = Ellipsis(s, 20)
	}
	return strconv.Quote(s)
}

// CreatedAt is the time of creation.
func (c *ContainerContext) CreatedAt() string { return time.Unix(c.c.Created, 0).String() }

// RunningFor is the time since creation.
func (c *ContainerContext) RunningFor() string { return ago(c.now, time.Unix(c.c.Created, 0)) }

// Ports published and exposed.
func (c *ContainerContext) Ports() string { return Ports(c.c.Ports) }

// State in one word.
func (c *ContainerContext) State() string { return string(c.c.State) }

// Status in words.
func (c *ContainerContext) Status() string { return c.c.Status }

// Size of the writable layer, and with the image below it.
func (c *ContainerContext) Size() string {
	s := units.HumanSizeWithPrecision(float64(c.c.SizeRw), 3)
	if c.c.SizeRootFs > 0 {
		s += " (virtual " + units.HumanSizeWithPrecision(float64(c.c.SizeRootFs), 3) + ")"
	}
	return s
}

// Labels as key=value, sorted.
func (c *ContainerContext) Labels() string { return joinLabels(c.c.Labels) }

// Label returns one label's value.
func (c *ContainerContext) Label(name string) string { return c.c.Labels[name] }

// Mounts by name, or by source.
func (c *ContainerContext) Mounts() string {
	var out []string
	for _, m := range c.c.Mounts {
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if c.trunc {
			n = Ellipsis(n, 15)
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

// LocalVolumes counts the volumes of the local driver.
func (c *ContainerContext) LocalVolumes() string {
	n := 0
	for _, m := range c.c.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

// Networks by name, sorted.
func (c *ContainerContext) Networks() string {
	if c.c.NetworkSettings == nil {
		return ""
	}
	var out []string
	for n := range c.c.NetworkSettings.Networks {
		out = append(out, n)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Platform of the image, if the daemon said it.
func (c *ContainerContext) Platform() *ocispec.Platform {
	if d := c.c.ImageManifestDescriptor; d != nil {
		return d.Platform
	}
	return nil
}

func joinLabels(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

func ago(now, t time.Time) string { return units.HumanDuration(now.Sub(t)) + " ago" }

// Ports writes published and exposed ports on one line; neighbours that keep
// their number (80-82->80-82/tcp) and exposed neighbours are joined.
func Ports(list []wire.PortSummary) string {
	ports := append([]wire.PortSummary(nil), list...)
	sort.SliceStable(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		if a.PrivatePort != b.PrivatePort {
			return a.PrivatePort < b.PrivatePort
		}
		if a.IP != b.IP {
			return a.IP.Compare(b.IP) < 0
		}
		if a.PublicPort != b.PublicPort {
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	type group struct {
		ip, proto   string
		first, last uint16
	}
	var open []*group
	var done, mapped []string
	text := func(g *group) string {
		r := strconv.Itoa(int(g.first))
		if g.last != g.first {
			r += "-" + strconv.Itoa(int(g.last))
		}
		if g.ip == "" {
			return r + "/" + g.proto
		}
		return net.JoinHostPort(g.ip, r) + "->" + r + "/" + g.proto
	}
next:
	for _, p := range ports {
		ip := ""
		if p.IP.IsValid() {
			ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort)))+"->"+strconv.Itoa(int(p.PrivatePort))+"/"+p.Type)
				continue
			}
		}
		for _, g := range open {
			if g.ip != ip || g.proto != p.Type {
				continue
			}
			if p.PrivatePort != g.last+1 {
				done = append(done, text(g))
				g.first = p.PrivatePort
			}
			g.last = p.PrivatePort
			continue next
		}
		open = append(open, &group{ip, p.Type, p.PrivatePort, p.PrivatePort})
	}
	for _, g := range open {
		done = append(done, text(g))
	}
	return strings.Join(append(done, mapped...), ", ")
}

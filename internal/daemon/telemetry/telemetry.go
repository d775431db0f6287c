// Package telemetry counts and times what the daemon does and shows it: in
// Prometheus's text format, as JSON, and through the profiler of Go's runtime.
//
// The daemon's wiring makes one Metrics, hands its methods to those who have
// something to count, and serves Handler on the debug socket and Metrics on
// --metrics-addr. The package writes nothing to disk, and must not know what a
// container is.
//
// Source of the format: Prometheus text exposition 0.0.4. Names that begin with
// engine_daemon_ are those of Docker Engine 29; gantry_ are our own.
package telemetry

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Family is all series of one name.
type Family struct {
	Name, Help string
	Label      string // name of the one label that tells series apart; empty for none
}

// bounds are the upper ends of the buckets of every histogram, in seconds.
var bounds = [...]float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// A histogram is the durations of one kind of thing.
type histogram struct {
	buckets [len(bounds) + 1]uint64
	sum     float64
}

// Metrics is what has been counted since the daemon began. Make one with New.
type Metrics struct {
	mu     sync.Mutex
	counts map[Family]map[string]float64
	times  map[Family]map[string]*histogram
	gauges []gauge
}

// A gauge is asked for its values when somebody looks.
type gauge struct {
	Family
	read func() map[string]float64
}

// New returns an empty Metrics.
func New() *Metrics {
	return &Metrics{counts: map[Family]map[string]float64{}, times: map[Family]map[string]*histogram{}}
}

// Add adds n to a counter.
func (m *Metrics) Add(f Family, label string, n float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts[f] == nil {
		m.counts[f] = map[string]float64{}
	}
	m.counts[f][label] += n
}

// Time notes how long something took.
func (m *Metrics) Time(f Family, label string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times[f] == nil {
		m.times[f] = map[string]*histogram{}
	}
	h := m.times[f][label]
	if h == nil {
		h = &histogram{}
		m.times[f][label] = h
	}
	s := took.Seconds()
	i, _ := slices.BinarySearch(bounds[:], s)
	h.buckets[i]++
	h.sum += s
}

// Gauge has read called whenever somebody looks; its keys are values of the
// family's label.
func (m *Metrics) Gauge(f Family, read func() map[string]float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gauges = append(m.gauges, gauge{f, read})
}

// WriteTo writes everything in the text format.
func (m *Metrics) WriteTo(w io.Writer) (int64, error) {
	m.mu.Lock()
	gauges := slices.Clone(m.gauges)
	m.mu.Unlock()
	// Whoever is asked may count something meanwhile.
	values := make([]map[string]float64, len(gauges))
	for i, g := range gauges {
		values[i] = g.read()
	}
	var b strings.Builder
	m.mu.Lock()
	for _, f := range sorted(m.counts) {
		head(&b, f, "counter")
		for _, label := range slices.Sorted(maps.Keys(m.counts[f])) {
			sample(&b, f.Name, f.Label, label, m.counts[f][label])
		}
	}
	for _, f := range sorted(m.times) {
		head(&b, f, "histogram")
		for _, label := range slices.Sorted(maps.Keys(m.times[f])) {
			m.times[f][label].write(&b, f, label)
		}
	}
	m.mu.Unlock()
	for i, g := range gauges {
		head(&b, g.Family, kindOf(g.Name))
		for _, label := range slices.Sorted(maps.Keys(values[i])) {
			sample(&b, g.Name, g.Label, label, values[i][label])
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// kindOf follows the rule that names of counters end in _total.
func kindOf(name string) string {
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}

func sorted[V any](m map[Family]V) []Family {
	return slices.SortedFunc(maps.Keys(m), func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
}

func head(b *strings.Builder, f Family, kind string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, f.Help, f.Name, kind)
}

func (h *histogram) write(b *strings.Builder, f Family, label string) {
	own := pair(f.Label, label)
	if own != "" {
		own += ","
	}
	var n uint64
	for i, count := range h.buckets {
		n += count
		end := "+Inf"
		if i < len(bounds) {
			end = number(bounds[i])
		}
		fmt.Fprintf(b, "%s_bucket{%s%s} %d\n", f.Name, own, pair("le", end), n)
	}
	sample(b, f.Name+"_sum", f.Label, label, h.sum)
	sample(b, f.Name+"_count", f.Label, label, float64(n))
}

func sample(b *strings.Builder, name, label, value string, v float64) {
	b.WriteString(name)
	if p := pair(label, value); p != "" {
		b.WriteString("{" + p + "}")
	}
	b.WriteString(" " + number(v) + "\n")
}

// pair renders labels: one, or several whose names and values are separated by
// commas.
func pair(label, value string) string {
	if label == "" {
		return ""
	}
	var parts []string
	values := strings.Split(value, "\x00")
	for i, name := range strings.Split(label, ",") {
		v := ""
		if i < len(values) {
			v = values[i]
		}
		parts = append(parts, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(v)+`"`)
	}
	return strings.Join(parts, ",")
}

// Labels joins the values of a family with several labels, in their order.
func Labels(values ...string) string { return strings.Join(values, "\x00") }

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

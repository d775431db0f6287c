package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// A Builder is the key builder of daemon.json.
type Builder struct {
	// GC bounds the build cache; NoGC leaves it alone.
	NoGC     bool
	Defaults CacheBounds // where there are no rules
	Rules    []CacheRule
	// HistoryAge and HistoryEntries bound what is remembered of builds; zero:
	// as BuildKit has it.
	HistoryAge     time.Duration
	HistoryEntries int64
	// What builds may be granted if their client asks for it.
	NetworkHost, Insecure, Devices bool
}

// CacheBounds are sizes of the build cache; a zero one is none.
type CacheBounds struct {
	Reserved, MaxUsed, MinFree Size
}

// A CacheRule says what of the build cache goes when.
type CacheRule struct {
	All    bool
	Filter []string // in BuildKit's words: "type==source.local"
	Keep   time.Duration
	CacheBounds
}

// A Size is a number of bytes, or a part of the file system in percent.
type Size struct {
	Bytes   int64
	Percent int64
}

// Of returns the bytes that s is of a file system with total bytes.
func (s Size) Of(total int64) int64 {
	if s.Percent > 0 {
		return total / 100 * s.Percent
	}
	return s.Bytes
}

func parseSize(text string) (Size, error) {
	if text == "" {
		return Size{}, nil
	}
	if p, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 0 || n > 100 {
			return Size{}, fmt.Errorf("invalid size: %q", text)
		}
		return Size{Percent: n}, nil
	}
	n, err := units.RAMInBytes(text)
	return Size{Bytes: n}, err
}

// parseAge reads a duration, which may be a number of seconds.
func parseAge(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if n, numeric := strconv.ParseInt(text, 10, 32); numeric == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("invalid maxAge: %q", text)
	}
	return d, nil
}

// builderBounds are sizes as the file has them.
type builderBounds struct {
	Keep     string `json:"keepStorage"` // the older name of the next one
	Reserved string `json:"reservedSpace"`
	MaxUsed  string `json:"maxUsedSpace"`
	MinFree  string `json:"minFreeSpace"`
}

func (b builderBounds) parse() (c CacheBounds, err error) {
	if b.Reserved == "" {
		b.Reserved = b.Keep
	}
	for _, f := range []struct {
		text string
		to   *Size
	}{{b.Reserved, &c.Reserved}, {b.MaxUsed, &c.MaxUsed}, {b.MinFree, &c.MinFree}} {
		if *f.to, err = parseSize(f.text); err != nil {
			return c, err
		}
	}
	return c, nil
}

// builder reads the key builder.
func builder() field {
	return field{json: func(c *Config, raw json.RawMessage) error {
		var in struct {
			GC struct {
				Enabled  *bool  `json:"enabled"`
				Keep     string `json:"defaultKeepStorage"`
				Reserved string `json:"defaultReservedSpace"`
				MaxUsed  string `json:"defaultMaxUsedSpace"`
				MinFree  string `json:"defaultMinFreeSpace"`
				Policy   []struct {
					All    bool     `json:"all"`
					Filter []string `json:"filter"`
					builderBounds
				} `json:"policy"`
			} `json:"gc"`
			Entitlements struct {
				NetworkHost *bool `json:"network-host"`
				Insecure    *bool `json:"security-insecure"`
				Device      *bool `json:"device"`
			} `json:"entitlements"`
			History struct {
				MaxAge     string `json:"maxAge"` // a duration, or seconds
				MaxEntries *int64 `json:"maxEntries"`
			} `json:"history"`
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			return err
		}
		b := &c.Builder
		b.NoGC = in.GC.Enabled != nil && !*in.GC.Enabled
		for _, e := range []struct{ said, to *bool }{{in.Entitlements.NetworkHost, &b.NetworkHost}, {in.Entitlements.Insecure, &b.Insecure}, {in.Entitlements.Device, &b.Devices}} {
			if e.said != nil {
				*e.to = *e.said
			}
		}
		var err error
		if b.HistoryAge, err = parseAge(in.History.MaxAge); err != nil {
			return fmt.Errorf("builder.history: %w", err)
		}
		if n := in.History.MaxEntries; n != nil {
			if *n < 1 {
				return fmt.Errorf("builder.history: invalid maxEntries: %d", *n)
			}
			b.HistoryEntries = *n
		}
		if b.Defaults, err = (builderBounds{in.GC.Keep, in.GC.Reserved, in.GC.MaxUsed, in.GC.MinFree}).parse(); err != nil {
			return fmt.Errorf("builder.gc: %w", err)
		}
		for _, p := range in.GC.Policy {
			r := CacheRule{All: p.All}
			if r.CacheBounds, err = p.parse(); err == nil {
				err = r.filter(p.Filter)
			}
			if err != nil {
				return fmt.Errorf("builder.gc.policy: %w", err)
			}
			b.Rules = append(b.Rules, r)
		}
		return nil
	}}
}

// filter reads the filters of a rule: key=value, of which unused-for says how old
// something must be.
func (r *CacheRule) filter(list []string) error {
	for _, f := range list {
		key, value, ok := strings.Cut(f, "=")
		value = strings.TrimPrefix(value, "=")
		if !ok {
			r.Filter = append(r.Filter, key)
			continue
		}
		if key == "unused-for" {
			d, err := time.ParseDuration(value)
			if err != nil {
				return err
			}
			r.Keep = d
			continue
		}
		r.Filter = append(r.Filter, key+"=="+value)
	}
	return nil
}

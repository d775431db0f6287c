package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// A field reads one setting into a Config, from a flag's text or from JSON.
type field struct {
	kind string // as --help shows it; empty for a switch
	// text reads a flag; repeated flags call it again.
	text func(c *Config, s string) error
	// json reads a key of daemon.json.
	json func(c *Config, raw json.RawMessage) error
}

func toggle(at func(*Config) *bool) field {
	return field{
		text: func(c *Config, s string) error {
			b, err := strconv.ParseBool(s)
			*at(c) = b
			return err
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

func text(at func(*Config) *string) field {
	return field{
		kind: "string",
		text: func(c *Config, s string) error { *at(c) = s; return nil },
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

func number(at func(*Config) *int) field {
	return field{
		kind: "int",
		text: func(c *Config, s string) (err error) { *at(c), err = strconv.Atoi(s); return err },
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

// list is a flag that may be repeated and a key that holds an array.
func list(at func(*Config) *[]string) field {
	return field{
		kind: "list",
		text: func(c *Config, s string) error { *at(c) = append(*at(c), s); return nil },
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

// pairs is a flag key=value that may be repeated and a key that holds an object
// of strings.
func pairs(at func(*Config) map[string]string) field {
	return field{
		kind: "map",
		text: func(c *Config, s string) error {
			k, v, ok := strings.Cut(s, "=")
			if !ok || k == "" {
				return fmt.Errorf("%q is not key=value", s)
			}
			at(c)[k] = v
			return nil
		},
		json: func(c *Config, raw json.RawMessage) error {
			m := at(c)
			return json.Unmarshal(raw, &m)
		},
	}
}

func address(at func(*Config) *netip.Addr) field {
	return parsed("ip", func(c *Config, s string) (err error) { *at(c), err = netip.ParseAddr(s); return err })
}

func addresses(at func(*Config) *[]netip.Addr) field {
	return field{
		kind: "list",
		text: func(c *Config, s string) error {
			a, err := netip.ParseAddr(s)
			*at(c) = append(*at(c), a)
			return err
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

// parsed is a setting that is text in both places.
func parsed(kind string, read func(*Config, string) error) field {
	return field{kind: kind, text: read, json: func(c *Config, raw json.RawMessage) error {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		return read(c, s)
	}}
}

// bytesOf is a size: a number of bytes, or text such as 64m.
func bytesOf(at func(*Config) *int64) field {
	read := func(c *Config, s string) (err error) { *at(c), err = units.RAMInBytes(s); return err }
	return field{kind: "bytes", text: read, json: func(c *Config, raw json.RawMessage) error {
		if json.Unmarshal(raw, at(c)) == nil {
			return nil
		}
		return parsed("", read).json(c, raw)
	}}
}

// runtimes is --add-runtime name=path and the key runtimes.
func runtimes() field {
	return field{
		kind: "runtime",
		text: func(c *Config, s string) error {
			name, path, ok := strings.Cut(s, "=")
			if !ok || name == "" || path == "" {
				return fmt.Errorf("invalid runtime argument: %s", s)
			}
			if name == OwnRuntime {
				return fmt.Errorf("runtime name '%s' is reserved", OwnRuntime)
			}
			c.Runtimes[name] = Runtime{Path: path}
			return nil
		},
		json: func(c *Config, raw json.RawMessage) error {
			var m map[string]struct {
				Runtime
				Type    string          `json:"runtimeType"`
				Options json.RawMessage `json:"options"`
			}
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			for name, r := range m {
				switch {
				case name == OwnRuntime:
					return fmt.Errorf("runtime name '%s' is reserved", OwnRuntime)
				case r.Type != "":
					return fmt.Errorf("runtime %s: a containerd shim (runtimeType) can't be used: name an OCI runtime's program in path", name)
				case r.Path == "":
					return fmt.Errorf("runtime %s: no path", name)
				}
				c.Runtimes[name] = r.Runtime
			}
			return nil
		},
	}
}

// ulimits is --default-ulimit name=soft[:hard] and the key default-ulimits.
func ulimits() field {
	return field{
		kind: "ulimit",
		text: func(c *Config, s string) error {
			u, err := units.ParseUlimit(s)
			if err != nil {
				return err
			}
			c.Ulimits[u.Name] = Ulimit{Name: u.Name, Hard: u.Hard, Soft: u.Soft}
			return nil
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, &c.Ulimits) },
	}
}

// pools is --default-address-pool base=10.0.0.0/8,size=24 and its key.
func pools() field {
	return field{
		kind: "pool-options",
		text: func(c *Config, s string) error {
			var p Pool
			for part := range strings.SplitSeq(s, ",") {
				k, v, _ := strings.Cut(part, "=")
				var err error
				switch strings.ToLower(strings.TrimSpace(k)) {
				case "base":
					p.Base, err = netip.ParsePrefix(v)
				case "size":
					p.Size, err = strconv.Atoi(v)
				default:
					err = fmt.Errorf("unexpected key '%s' in '%s'", k, part)
				}
				if err != nil {
					return err
				}
			}
			c.Pools = append(c.Pools, p)
			return nil
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, &c.Pools) },
	}
}

// networkOpts is --default-network-opt driver=key=value and its key.
func networkOpts() field {
	return field{
		kind: "mapmap",
		text: func(c *Config, s string) error {
			driver, kv, ok := strings.Cut(s, "=")
			k, v, set := strings.Cut(kv, "=")
			if !ok || !set || driver == "" || k == "" {
				return fmt.Errorf("invalid value %q: want driver=option=value", s)
			}
			if c.NetworkOpts == nil {
				c.NetworkOpts = map[string]map[string]string{}
			}
			if c.NetworkOpts[driver] == nil {
				c.NetworkOpts[driver] = map[string]string{}
			}
			c.NetworkOpts[driver][k] = v
			return nil
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, &c.NetworkOpts) },
	}
}

// execOpts is --exec-opt native.cgroupdriver=… and the key exec-opts.
func execOpts() field {
	one := func(c *Config, s string) error {
		k, v, _ := strings.Cut(s, "=")
		if k != "native.cgroupdriver" {
			return fmt.Errorf("invalid exec-opt %q: only native.cgroupdriver is known", s)
		}
		c.CgroupDriver = v
		return nil
	}
	return field{kind: "list", text: one, json: func(c *Config, raw json.RawMessage) error {
		var opts []string
		if err := json.Unmarshal(raw, &opts); err != nil {
			return err
		}
		for _, s := range opts {
			if err := one(c, s); err != nil {
				return err
			}
		}
		return nil
	}}
}

// features is --feature name[=bool] and the key features.
func features() field {
	return field{kind: "map", text: func(c *Config, s string) error {
		k, v, ok := strings.Cut(s, "=")
		b := true
		if ok {
			var err error
			if b, err = strconv.ParseBool(v); err != nil {
				return err
			}
		}
		c.Features[k] = b
		return nil
	}, json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, &c.Features) }}
}

// proxies is the key proxies: an object with the three proxy settings.
func proxies() field {
	return field{json: func(c *Config, raw json.RawMessage) error {
		var p struct {
			HTTP  string `json:"http-proxy"`
			HTTPS string `json:"https-proxy"`
			No    string `json:"no-proxy"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		c.HTTPProxy, c.HTTPSProxy, c.NoProxy = p.HTTP, p.HTTPS, p.No
		return nil
	}}
}

// registries is the key registries: how to reach images by the beginning of
// their names.
func registries() field {
	return field{json: func(c *Config, raw json.RawMessage) error {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		return dec.Decode(&c.Registries)
	}}
}

// ignored reads anything of the given kind and keeps nothing.
func ignored(kind string) field {
	return field{kind: kind, text: func(*Config, string) error { return nil }, json: func(*Config, json.RawMessage) error { return nil }}
}

// triState is a switch that knows whether it was given.
func triState(at func(*Config) **bool) field {
	return field{
		text: func(c *Config, s string) error {
			b, err := strconv.ParseBool(s)
			*at(c) = &b
			return err
		},
		json: func(c *Config, raw json.RawMessage) error { return json.Unmarshal(raw, at(c)) },
	}
}

// address1 is the older key for one address of a list.
func address1(at func(*Config) *[]netip.Addr) field {
	return parsed("ip", func(c *Config, s string) error {
		a, err := netip.ParseAddr(s)
		*at(c) = []netip.Addr{a}
		return err
	})
}

// publishing reads how published ports pass the host's filters.
func publishing(c *Config, s string) error {
	switch s {
	case "", "open", "filtered":
		c.FilterPorts = s == "filtered"
		return nil
	}
	return fmt.Errorf("published-ports is open or filtered, not %q", s)
}

// acceptMark reads a mark as "0x1" or "0x1/0x3".
func acceptMark(c *Config, s string) error {
	if s == "" {
		c.AcceptMark = Mark{}
		return nil
	}
	value, mask, ok := strings.Cut(s, "/")
	if !ok {
		mask = "0xffffffff"
	}
	v, err := strconv.ParseUint(value, 0, 32)
	m, merr := strconv.ParseUint(mask, 0, 32)
	if err != nil || merr != nil || m == 0 || v&^m != 0 {
		return fmt.Errorf("invalid firewall mark %q: it has to be a number, or number/mask", s)
	}
	c.AcceptMark = Mark{uint32(v), uint32(m)}
	return nil
}

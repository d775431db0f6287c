package opt

import (
	"encoding/csv"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"gantry/internal/errs"
)

// Ulimits collects name=soft[:hard]; the last one of a name wins.
type Ulimits []*container.Ulimit

// Set parses one limit.
func (u *Ulimits) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	for i, o := range *u {
		if o.Name == l.Name {
			(*u)[i] = l
			return nil
		}
	}
	*u = append(*u, l)
	return nil
}

// String shows the limits for a usage text.
func (u *Ulimits) String() string {
	out := []string{}
	for _, l := range *u {
		out = append(out, l.String())
	}
	return fmt.Sprintf("%v", out)
}

// Type is the word in the usage text.
func (u *Ulimits) Type() string { return "ulimit" }

// Throttle collects device-path:rate.
type Throttle struct {
	Devices []*blkiodev.ThrottleDevice
	Bytes   bool // the rate is a size (1mb), not a plain number
}

// Set parses one device.
func (t *Throttle) Set(v string) error {
	dev, rate, ok := strings.Cut(v, ":")
	if !ok || dev == "" {
		return errs.New(errs.Invalid, "bad format: %s", v)
	}
	if !strings.HasPrefix(dev, "/dev/") {
		return errs.New(errs.Invalid, "bad format for device path: %s", v)
	}
	var n uint64
	if t.Bytes {
		b, err := units.RAMInBytes(rate)
		if err != nil || b < 0 {
			return errs.New(errs.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", v)
		}
		n = uint64(b)
	} else {
		var err error
		if n, err = strconv.ParseUint(rate, 10, 64); err != nil {
			return errs.New(errs.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", v)
		}
	}
	t.Devices = append(t.Devices, &blkiodev.ThrottleDevice{Path: dev, Rate: n})
	return nil
}

// String shows the devices for a usage text.
func (t *Throttle) String() string {
	out := []string{}
	for _, d := range t.Devices {
		out = append(out, d.String())
	}
	return fmt.Sprintf("%v", out)
}

// Type is the word in the usage text.
func (t *Throttle) Type() string { return "list" }

// Weights collects device-path:weight.
type Weights []*blkiodev.WeightDevice

// Set parses one device.
func (w *Weights) Set(v string) error {
	dev, weight, ok := strings.Cut(v, ":")
	if !ok || dev == "" {
		return errs.New(errs.Invalid, "bad format: %s", v)
	}
	if !strings.HasPrefix(dev, "/dev/") {
		return errs.New(errs.Invalid, "bad format for device path: %s", v)
	}
	n, err := strconv.ParseUint(weight, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return errs.New(errs.Invalid, "invalid weight for device: %s", v)
	}
	*w = append(*w, &blkiodev.WeightDevice{Path: dev, Weight: uint16(n)})
	return nil
}

// String shows the devices for a usage text.
func (w *Weights) String() string {
	out := []string{}
	for _, d := range *w {
		out = append(out, d.String())
	}
	return fmt.Sprintf("%v", out)
}

// Type is the word in the usage text.
func (w *Weights) Type() string { return "list" }

// GPUs collects --gpus: all, a number, or options as comma-separated fields.
type GPUs []container.DeviceRequest

// Set parses one request.
func (g *GPUs) Set(v string) error {
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return err
	}
	req := container.DeviceRequest{}
	seen := map[string]bool{}
	for _, f := range fields {
		key, val, has := strings.Cut(f, "=")
		if seen[key] {
			return errs.New(errs.Invalid, "gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		if !has {
			seen["count"] = true
			if req.Count, err = gpuCount(key); err != nil {
				return err
			}
			continue
		}
		switch key {
		case "driver":
			req.Driver = val
		case "count":
			if req.Count, err = gpuCount(val); err != nil {
				return err
			}
		case "device":
			req.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			o, err := csv.NewReader(strings.NewReader(val)).Read()
			if err != nil {
				return errs.New(errs.Invalid, "failed to read gpu options: %w", err)
			}
			req.Options = ToMap(o)
		default:
			return errs.New(errs.Invalid, "unexpected key '%s' in '%s'", key, f)
		}
	}
	if !seen["count"] && req.DeviceIDs == nil {
		req.Count = 1
	}
	if req.Options == nil {
		req.Options = map[string]string{}
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	*g = append(*g, req)
	return nil
}

func gpuCount(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "invalid count (%s): value must be either \"all\" or an integer", s)
	}
	return n, nil
}

// String shows nothing: there is no default.
func (g *GPUs) String() string { return "" }

// Type is the word in the usage text.
func (g *GPUs) Type() string { return "gpu-request" }

// Device parses host[:container][:mode] with mode of r, w and m.
func Device(v string) (container.DeviceMapping, error) {
	parts := strings.Split(v, ":")
	if len(parts) > 3 || parts[0] == "" {
		return container.DeviceMapping{}, errs.New(errs.Invalid, "bad format for path: %s", v)
	}
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 2:
		if deviceMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = path.Clean(parts[1])
		}
	case 3:
		if !deviceMode(parts[2]) {
			return d, errs.New(errs.Invalid, "bad mode specified: %s", parts[2])
		}
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	}
	if !path.IsAbs(d.PathInContainer) {
		return d, errs.New(errs.Invalid, "%s is not an absolute path", d.PathInContainer)
	}
	return d, nil
}

func deviceMode(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && strings.Count(s, "r") < 2 && strings.Count(s, "w") < 2 && strings.Count(s, "m") < 2
}

// IsCDI reports whether v names a device by vendor/class=name.
func IsCDI(v string) bool {
	kind, name, ok := strings.Cut(v, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	return ok && ok2 && name != "" && vendor != "" && class != "" && !strings.Contains(class, "/")
}

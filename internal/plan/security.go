package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/wire"
)

// capNames are the kernel's capabilities, by number (capabilities(7)).
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
	"CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
	"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCaps are Docker's: 00000000a80425fb.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// allCaps stands for every capability in CapAdd and CapDrop.
const allCaps = "ALL"

// normalizeCaps brings names into the form CAP_X, or ALL, and refuses those
// that the kernel does not have.
func normalizeCaps(in []string, k Kernel) ([]string, error) {
	known := capNames
	if k.LastCap > 0 && k.LastCap < len(known) {
		known = known[:k.LastCap+1]
	}
	var out []string
	for _, c := range in {
		c = strings.ToUpper(c)
		if c != allCaps {
			c = "CAP_" + strings.TrimPrefix(c, "CAP_")
		}
		if c == "CAP_"+allCaps {
			c = allCaps
		}
		if c != allCaps && !slices.Contains(known, c) {
			return nil, fmt.Errorf("unknown capability: %q", c)
		}
		out = append(out, c)
	}
	return out, nil
}

// Capabilities are those the container's root has, sorted by number. have is
// the set (bit n for number n) that can be given at all; 0 for all known.
func (s Security) Capabilities(have uint64) []string {
	want := map[string]bool{}
	set := func(names []string, on bool) {
		for _, c := range names {
			if c == allCaps {
				continue
			}
			want[c] = on
		}
	}
	switch {
	case s.Privileged:
		set(capNames, true)
	case slices.Contains(s.CapAdd, allCaps):
		set(capNames, true)
		set(s.CapDrop, false)
	case slices.Contains(s.CapDrop, allCaps):
		set(s.CapAdd, true)
	default:
		set(defaultCaps, true)
		set(s.CapDrop, false)
		set(s.CapAdd, true)
	}
	out := []string{}
	for n, c := range capNames {
		if want[c] && (have == 0 || have&(1<<n) != 0) {
			out = append(out, c)
		}
	}
	return out
}

// AllCapabilities are every one that can be given, sorted by number: what a
// privileged process has.
func AllCapabilities(have uint64) []string {
	return Security{Privileged: true}.Capabilities(have)
}

// planSecurity reads the security options. It is the one place that decides
// what privilege a container has, for whichever API asks. Docker answers a
// breach of the options' grammar with 500, so these errors have no kind.
func planSecurity(hc *wire.HostConfig, d Defaults) (Security, error) {
	add, err := normalizeCaps(hc.CapAdd, d.Kernel)
	if err != nil {
		return Security{}, err
	}
	drop, err := normalizeCaps(hc.CapDrop, d.Kernel)
	if err != nil {
		return Security{}, err
	}
	s := Security{
		Privileged: hc.Privileged, CapAdd: add, CapDrop: drop, NoNewPrivileges: d.NoNewPrivileges,
		MaskedPaths: slices.Clone(hc.MaskedPaths), ReadonlyPaths: slices.Clone(hc.ReadonlyPaths),
	}
	for _, o := range hc.SecurityOpt {
		if err := s.option(o); err != nil {
			return Security{}, err
		}
	}
	if hc.Privileged {
		s.MaskedPaths, s.ReadonlyPaths = nil, nil
		s.WritableCgroups = true
		// A privileged container has no filter, unless its user brings one.
		s.Seccomp = firstNonEmpty(s.Seccomp, Unconfined)
		if s.Seccomp == Builtin {
			s.Seccomp = Unconfined
		}
		s.AppArmor = firstNonEmpty(s.AppArmor, Unconfined)
		return s, nil
	}
	s.Seccomp = firstNonEmpty(s.Seccomp, d.Seccomp, Builtin)
	if !d.Kernel.Seccomp && s.Seccomp != Unconfined {
		if s.Seccomp != Builtin {
			return Security{}, fmt.Errorf("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
		}
		s.Seccomp = Unconfined
	}
	return s, nil
}

// option applies one --security-opt.
func (s *Security) option(o string) error {
	switch o {
	case "no-new-privileges":
		s.NoNewPrivileges = true
		return nil
	case "disable":
		s.Labels = append(s.Labels, o)
		return nil
	}
	key, value, ok := strings.Cut(o, "=")
	if !ok {
		key, value, ok = strings.Cut(o, ":") // as it was written before 1.11
	}
	if !ok {
		return fmt.Errorf("invalid --security-opt 1: %q", o)
	}
	invalid := fmt.Errorf("invalid --security-opt 2: %q", o)
	switch key {
	case "label":
		s.Labels = append(s.Labels, value)
	case "apparmor":
		s.AppArmor = value
	case "seccomp":
		s.Seccomp = value
	case "no-new-privileges", "writable-cgroups":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid
		}
		if key == "no-new-privileges" {
			s.NoNewPrivileges = on
		} else {
			s.WritableCgroups = on
		}
	case "systempaths":
		// The docker command turns this into empty lists; others may not.
		if value != Unconfined {
			return invalid
		}
		s.MaskedPaths, s.ReadonlyPaths = nil, nil
	default:
		return invalid
	}
	return nil
}

// labelled tells whether the user spoke of SELinux labels.
func labelled(opts []string) bool {
	return slices.ContainsFunc(opts, func(o string) bool {
		return o == "label" || strings.HasPrefix(o, "label=") || strings.HasPrefix(o, "label:")
	})
}

package durable

import (
	"os"
	"strings"
)

// Boot names this boot of the machine: what was not flushed in another one may be
// lost. Source: random(4), boot_id.
func Boot() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

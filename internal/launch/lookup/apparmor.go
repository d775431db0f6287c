package lookup

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"gantry/internal/plan"
)

// defaultProfiles are the AppArmor profiles for containers that name none, the
// first that is loaded counts: one of the administrator's for us, or Docker's.
var defaultProfiles = [...]string{"gantry-default", "docker-default"}

// AppArmor returns the profile for containers that name none, as
// ocispec.Inputs.AppArmor wants it: "" on a host without AppArmor. sys is where
// sysfs is mounted.
func AppArmor(sys string) string {
	on, err := os.ReadFile(filepath.Join(sys, "module/apparmor/parameters/enabled"))
	if err != nil || strings.TrimSpace(string(on)) != "Y" {
		return ""
	}
	// A list that can't be read has none that could be set.
	list, _ := os.ReadFile(filepath.Join(sys, "kernel/security/apparmor/profiles"))
	loaded := map[string]bool{}
	for sc := bufio.NewScanner(bytes.NewReader(list)); sc.Scan(); {
		name, _, _ := strings.Cut(sc.Text(), " (")
		loaded[name] = true
	}
	for _, p := range defaultProfiles {
		if loaded[p] {
			return p
		}
	}
	return plan.Unconfined
}

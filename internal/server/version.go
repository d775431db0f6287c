package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// The API versions that are served.
const (
	MinVersion = "1.24"
	MaxVersion = "1.56"
)

// A version is an API version, compared as a number: 1.56 is 1056.
type version int

const (
	minVersion version = 1024
	maxVersion version = 1056
	// skopeoVersion is what skopeo's docker-daemon transport speaks; archives of
	// images have not changed since.
	skopeoVersion version = 1022
)

// parseVersion reads what stands between "/v" and the next slash: digits and
// dots. It returns a number that orders as the version does, so that 1.56.1
// is above 1.56 and 1 is 1.0.
func parseVersion(text string) version {
	parts := strings.Split(text, ".")
	num := func(i int) int {
		if i >= len(parts) {
			return 0
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return 0
		}
		return min(n, 999)
	}
	v := version(num(0)*1000 + num(1))
	for i := 2; i < len(parts); i++ {
		if num(i) > 0 {
			return v + 1 // between v and the next; only compared to the maximum
		}
	}
	return v
}

// A versionError refuses a request for its version. Clients older than 1.24 do
// not read JSON errors.
type versionError struct {
	error
	plain bool
}

// checkVersion returns a *versionError if v, written as text, is not served.
// oldest is for operations that are served below the minimum too, or 0.
func checkVersion(v, oldest version, text string) *versionError {
	switch {
	case v < minVersion && (oldest == 0 || v < oldest):
		return &versionError{errs.New(errs.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", text, MinVersion), true}
	case v > maxVersion:
		return &versionError{errs.New(errs.Invalid, "client version %s is too new. Maximum supported API version is %s", text, MaxVersion), false}
	}
	return nil
}

func (e *versionError) write(w http.ResponseWriter) {
	if e.plain {
		http.Error(w, e.Error(), http.StatusBadRequest)
		return
	}
	writeError(w, e.error)
}

// String returns the version as clients write it.
func (v version) String() string { return fmt.Sprintf("%d.%d", int(v)/1000, int(v)%1000) }

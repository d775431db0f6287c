package server

import (
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"gantry/internal/errs"
)

// guard refuses what a web page in a browser could send to a TCP port of this
// machine (row S20 of the threat model): a request with an Origin, and one
// whose Host is a foreign name, as a rebound DNS name would be.
func guard(next http.Handler, allowed []string) http.Handler {
	own, _ := os.Hostname()
	allowed = append([]string{"localhost", own}, allowed...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := foreign(r.Host, r.Header.Get("Origin"), allowed); err != nil {
			writeError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreign decides whether a request may come from a web page.
func foreign(host, origin string, allowed []string) error {
	if origin != "" {
		return errs.New(errs.Denied, "requests from web pages are refused (Origin: %s)", origin)
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if net.ParseIP(name) != nil || slices.ContainsFunc(allowed, func(a string) bool { return a != "" && strings.EqualFold(a, name) }) {
		return nil
	}
	return errs.New(errs.Denied, "the Host header names another machine (%s)", host)
}

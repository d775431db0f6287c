// Package id makes and recognises the 64-hex identifiers of containers,
// networks, execs and volumes. It knows nothing of what they name.
package id

import (
	"crypto/rand"
	"encoding/hex"
)

// Len is the length of a full identifier in characters.
const Len = 64

// ShortLen is the length of the form that people see.
const ShortLen = 12

// New returns a fresh random identifier of 64 lower-case hex characters. Its
// short form is never all digits, so that it can't be mistaken for a number
// where a host name is expected (RFC 1123 allows those, old resolvers do not).
func New() string {
	for {
		var b [Len / 2]byte
		rand.Read(b[:])
		s := hex.EncodeToString(b[:])
		if !allDigits(s[:ShortLen]) {
			return s
		}
	}
}

// Short returns the first 12 characters of a full identifier, and anything
// shorter unchanged.
func Short(s string) string {
	if len(s) > ShortLen {
		return s[:ShortLen]
	}
	return s
}

// Valid reports whether s is a full identifier.
func Valid(s string) bool {
	return len(s) == Len && ValidPrefix(s)
}

// ValidPrefix reports whether s could begin an identifier: 1 to 64 lower-case
// hex characters.
func ValidPrefix(s string) bool {
	if len(s) == 0 || len(s) > Len {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Package testkit is what the tests of other packages share: tiny images made
// by code, and a real daemon on throw-away directories. No program imports it.
package testkit

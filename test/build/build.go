// Package build holds the tests of builds with the real programs: the command
// line, the classic API, and a corpus of Dockerfiles. It holds no code.
package build

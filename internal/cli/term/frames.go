package term

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Stream numbers of a frame's first byte.
const (
	frameStdin  = 0
	frameStdout = 1
	frameStderr = 2
	frameSystem = 3 // an error text of the daemon
)

// maxSystemFrame bounds an error text.
const maxSystemFrame = 64 << 10

// Demux copies the frames of r to stdout and stderr until r ends. A frame is
// one byte stream number, three zero bytes, a big-endian uint32 length, and
// that many bytes. A nil writer drops its stream. A frame of the daemon itself
// becomes the error.
func Demux(stdout, stderr io.Writer, r io.Reader) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // the daemon went away between frames
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var w io.Writer
		switch head[0] {
		case frameStdin, frameStdout:
			w = stdout
		case frameStderr:
			w = stderr
		case frameSystem:
			b, err := io.ReadAll(io.LimitReader(r, min(size, maxSystemFrame)))
			if err != nil {
				return err
			}
			return fmt.Errorf("error from daemon in stream: %s", b)
		default:
			return fmt.Errorf("unrecognized input header: %d", head[0])
		}
		if w == nil {
			w = io.Discard
		}
		if _, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(r, size), buf); err != nil {
			return err
		}
	}
}

// onlyWriter hides ReadFrom, so that CopyBuffer uses the buffer it was given.
type onlyWriter struct{ io.Writer }

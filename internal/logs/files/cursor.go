package files

import (
	"fmt"
	"os"
	"path/filepath"

	"gantry/internal/durable"
	"gantry/internal/logs"
)

// Cursor returns the name of the file that says how far the log at path has been
// sent elsewhere. The daemon writes it, the shim reads it.
func Cursor(path string) string { return path + ".cursor" }

// ReadCursor returns how far a log has been sent; the zero Place if it is not known.
func ReadCursor(name string) logs.Place {
	var p logs.Place
	data, err := os.ReadFile(name)
	if err != nil {
		return p
	}
	if n, _ := fmt.Sscanf(string(data), "%d %d\n", &p.Offset, &p.Number); n != 2 || p.Offset < 0 {
		return logs.Place{}
	}
	return p
}

// WriteCursor notes how far a log has been sent. The directory must exist.
func WriteCursor(name string, p logs.Place) error {
	if _, err := os.Stat(filepath.Dir(name)); err != nil {
		return err
	}
	return durable.Replace(name, fmt.Appendf(nil, "%d %d\n", p.Offset, p.Number), 0o600)
}

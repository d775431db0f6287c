package buildx

import (
	"io"
	"strings"
	"text/tabwriter"
)

// table prints rows under their heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	for _, r := range rows {
		if _, err := io.WriteString(t, strings.Join(r, "\t")+"\n"); err != nil {
			return err
		}
	}
	return t.Flush()
}

package formatter

import (
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Columns aligns the columns of a table as a terminal shows them: characters of
// East Asian scripts and emoji take two places there, marks that go on another
// character none.
type Columns struct {
	Min     int // least width of a column, its padding included
	Padding int // blanks between columns
}

// Write writes text, whose cells end in tabs and whose lines end in line feeds.
// What follows the last tab of a line is in no column. A column goes on for as
// long as the lines have it.
func (c Columns) Write(w io.Writer, text string) error {
	var lines [][]string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	widths := c.widths(lines)
	var b strings.Builder
	for n, cells := range lines {
		for i, cell := range cells {
			b.WriteString(cell)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[n][i]-Width(cell)))
			}
		}
		if n < len(lines)-1 || strings.HasSuffix(text, "\n") {
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widths is the width of each cell of each line, the last of a line left out.
func (c Columns) widths(lines [][]string) [][]int {
	out := make([][]int, len(lines))
	for n, cells := range lines {
		out[n] = make([]int, len(cells)-1)
	}
	for n := range lines {
		for i := len(out[n]) - 1; i >= 0 && out[n][i] == 0; i-- {
			// The column begins here and ends before the first line without it.
			most, end := c.Min, n
			for ; end < len(lines) && i < len(out[end]); end++ {
				most = max(most, Width(lines[end][i])+c.Padding)
			}
			for ; end > n; end-- {
				out[end-1][i] = most
			}
		}
	}
	return out
}

// Width is the number of places that s takes on a terminal.
func Width(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x300:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case isWide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

func isWide(r rune) bool {
	k := width.LookupRune(r).Kind()
	return k == width.EastAsianWide || k == width.EastAsianFullwidth
}

package formatter

import (
	"math/rand/v2"
	"strings"
	"testing"
	"text/tabwriter"
)

func TestWideCharacters(t *testing.T) {
	var b strings.Builder
	err := Columns{Min: 4, Padding: 2}.Write(&b, "NAME\tID\n日本語\t1\n🐳\t2\ne\u0301te\u0301\t3\nabcdefgh\t4\n")
	want := "NAME      ID\n日本語    1\n🐳        2\ne\u0301te\u0301       3\nabcdefgh  4\n"
	if err != nil || b.String() != want {
		t.Errorf("%v:\n%s---\n%s", err, b.String(), want)
	}
}

// For plain text the standard library's writer says what is right.
func TestColumnsAreAsTabwriters(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var text strings.Builder
		for range random.IntN(8) {
			for range random.IntN(5) {
				text.WriteString(strings.Repeat("x", random.IntN(6)) + "\t")
			}
			text.WriteString(strings.Repeat("y", random.IntN(6)) + "\n")
		}
		var want, got strings.Builder
		tw := tabwriter.NewWriter(&want, 5, 1, 2, ' ', 0)
		tw.Write([]byte(text.String()))
		tw.Flush()
		if err := (Columns{Min: 5, Padding: 2}).Write(&got, text.String()); err != nil || got.String() != want.String() {
			t.Fatalf("%q:\n%q\n%q", text.String(), got.String(), want.String())
		}
	}
}

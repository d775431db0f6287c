package nat

import (
	"net/netip"
	"os"
	"testing"
)

// TestRedirection holds the rules against what is written down.
func TestRedirection(t *testing.T) {
	got := Redirection(netip.MustParseAddrPort("127.0.0.11:53"), 65053).String()
	const file = "testdata/redirection.nft"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the rules are now\n%s\nand were\n%s", got, want)
	}
}

package kernel

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDumpAsksAgain(t *testing.T) {
	n := 0
	got, err := dump(func() ([]int, error) {
		if n++; n < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 || n != 3 {
		t.Errorf("%v %v after %d", got, err, n)
	}
	n = 0
	if _, err := dump(func() ([]int, error) { n++; return nil, netlink.ErrDumpInterrupted }); err == nil || n != dumpTries {
		t.Errorf("%v after %d", err, n)
	}
	n = 0
	if _, err := dump(func() ([]int, error) { n++; return nil, errors.New("no") }); err == nil || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

package layer

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gantry/internal/errs"
)

// Decompressors that were used, also by a stream that was broken or left in the
// middle, give what is in the next one.
func TestDecompressorsAreUsedAgain(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var p Decompressors
	var wg sync.WaitGroup
	for n := range 24 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(n), 1, 2}, 50_000+n)
			packed := w.EncodeAll(want, nil)
			if n%3 == 1 {
				packed[len(packed)/2] ^= 0xff
			}
			r, c, err := p.decompress(bytes.NewReader(packed), Limits{})
			if err != nil || c != Zstd {
				t.Error(c, err)
				return
			}
			switch n % 3 {
			case 0:
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("stream %d: %d bytes for %d, %v", n, len(got), len(want), err)
				}
			case 1:
				if _, err := io.ReadAll(r); !errs.Is(err, errs.Invalid) {
					t.Errorf("broken stream %d: %v", n, err)
				}
			case 2:
				if _, err := io.ReadFull(r, make([]byte, 7)); err != nil {
					t.Errorf("stream %d: %v", n, err)
				}
			}
			if err := r.Close(); err != nil {
				t.Errorf("stream %d: %v", n, err)
			}
		})
	}
	wg.Wait()
}

package ledger

import "gantry/internal/wire"

// SetRate writes down the bounds of a sandbox's traffic. Without a sandbox
// nothing happens.
func SetRate(b *Book, owner string, r wire.NetRate) error {
	b.mu.Lock()
	old := b.entries[owner]
	if old == nil || old.Rate == r {
		b.mu.Unlock()
		return nil
	}
	e := *old
	e.Rate = r
	b.entries[owner] = &e
	b.mu.Unlock()
	return b.records.write(&e)
}

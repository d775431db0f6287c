package content

import (
	"context"
	"errors"
	"sync"

	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	bolt "go.etcd.io/bbolt"
)

// A group makes changes that come at the same time durable together: whoever
// comes while a transaction waits for the disk is in the next one, with all others
// who have come.
type group struct {
	update func(func(*bolt.Tx) error) error

	turn sync.Mutex // held while a transaction is made

	mu    sync.Mutex
	queue []*joint
}

// A joint is one change of a group.
type joint struct {
	fn   func(ctx context.Context) error
	ctx  context.Context
	over bool
	err  error
}

var errInterrupted = errors.New("the transaction was interrupted")

// do makes a change, whose error it returns: then nothing of it is made. fn is
// called with a context of the transaction, and may be called again, if a change
// beside it has failed.
func (g *group) do(ctx context.Context, fn func(ctx context.Context) error) error {
	j := &joint{fn: fn, ctx: ctx}
	g.mu.Lock()
	g.queue = append(g.queue, j)
	g.mu.Unlock()
	g.turn.Lock()
	defer g.turn.Unlock()
	if !j.over { // else somebody else has made it
		g.mu.Lock()
		list := g.queue
		g.queue = nil
		g.mu.Unlock()
		g.make(list)
	}
	return j.err
}

// make makes changes; turn is held.
func (g *group) make(list []*joint) {
	all := list
	for _, j := range all {
		j.err = errInterrupted
	}
	defer func() {
		for _, j := range all {
			j.over = true
		}
	}()
	for len(list) > 0 {
		failed := -1
		err := g.update(func(tx *bolt.Tx) error {
			for i, j := range list {
				if err := j.fn(boltutil.WithTransaction(j.ctx, tx)); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 {
			for _, j := range list {
				j.err = err
			}
			return
		}
		list[failed].err = err
		list = append(list[:failed:failed], list[failed+1:]...)
	}
}

package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

var errInterrupted = errors.New("interrupted")

// interrupts turns the first ctrl-c (or SIGTERM) into a cancelled context and the
// second into the end of the process.
type interrupts struct {
	mu     sync.Mutex
	got    syscall.Signal
	ch     chan os.Signal
	done   chan struct{}
	cancel context.CancelCauseFunc
	once   sync.Once
	joined chan struct{}
}

func catchInterrupts(ctx context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancelCause(ctx)
	i := &interrupts{ch: make(chan os.Signal, 4), done: make(chan struct{}), joined: make(chan struct{}), cancel: cancel}
	signal.Notify(i.ch, os.Interrupt, syscall.SIGTERM)
	go i.loop()
	return ctx, i
}

func (i *interrupts) loop() {
	defer close(i.joined)
	for n := 0; ; n++ {
		select {
		case <-i.done:
			return
		case s := <-i.ch:
			i.mu.Lock()
			i.got, _ = s.(syscall.Signal)
			i.mu.Unlock()
			if n > 0 {
				os.Exit(i.code())
			}
			i.cancel(errInterrupted)
		}
	}
}

// stop gives the signals back to their default. It may be called twice.
func (i *interrupts) stop() {
	i.once.Do(func() {
		signal.Stop(i.ch)
		close(i.done)
		<-i.joined
	})
}

// code is the exit code of a process that a signal ended: 128 + its number.
func (i *interrupts) code() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return 128 + int(i.got)
}

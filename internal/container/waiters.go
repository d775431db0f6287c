package container

import (
	"slices"
	"sync"

	"gantry/internal/wire"
)

// waiters are those who wait for a container's next exit or for its removal.
type waiters struct {
	mu     sync.Mutex
	onExit []chan wire.WaitResponse
	onGone []chan wire.WaitResponse
}

// nextExit returns a channel that gives one answer at the next exit. Its
// buffer holds the answer, so that nobody has to receive it.
func (w *waiters) nextExit() <-chan wire.WaitResponse {
	ch := make(chan wire.WaitResponse, 1)
	w.mu.Lock()
	w.onExit = append(w.onExit, ch)
	w.mu.Unlock()
	return ch
}

// gone returns a channel that gives one answer when the container is removed.
func (w *waiters) gone() <-chan wire.WaitResponse {
	ch := make(chan wire.WaitResponse, 1)
	w.mu.Lock()
	w.onGone = append(w.onGone, ch)
	w.mu.Unlock()
	return ch
}

// drop ends the wait for an exit.
func (w *waiters) drop(ch <-chan wire.WaitResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onExit = slices.DeleteFunc(w.onExit, func(c chan wire.WaitResponse) bool { return c == ch })
}

func (w *waiters) exited(code int) {
	w.mu.Lock()
	list := w.onExit
	w.onExit = nil
	w.mu.Unlock()
	answerAll(list, code)
}

// removed answers everybody: no further exit will come.
func (w *waiters) removed(code int) {
	w.mu.Lock()
	list := append(w.onExit, w.onGone...)
	w.onExit, w.onGone = nil, nil
	w.mu.Unlock()
	answerAll(list, code)
}

func answerAll(list []chan wire.WaitResponse, code int) {
	for _, ch := range list {
		ch <- wire.WaitResponse{StatusCode: int64(code)}
	}
}

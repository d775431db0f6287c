package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"gantry/internal/durable"
	"gantry/internal/wire"
)

// pace is how often the journal is written at most.
const pace = time.Second

// A journal keeps the history in a file, an event as JSON on each line, oldest
// first. What is published waits up to a second to be written: a process that
// is killed loses that much of the past, and no start ever waits for the disk.
type journal struct {
	path  string
	lines int // in the file
	add   func(wire.Event)
	close func()
}

// Journal has the history kept in the file at path, and remembers the events
// that are in it. It is called once, before anything is published. An error to
// write later only costs history.
func (b *Bus) Journal(path string) error {
	old, lines, err := readJournal(path)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range old {
		b.remember(e)
		b.last = max(b.last, e.TimeNano)
	}
	j := &journal{path: path, lines: lines}
	// Anything that reads slower than this is missing in the next life.
	ch, over := make(chan wire.Event, History), make(chan struct{})
	j.add = func(e wire.Event) {
		select {
		case ch <- e:
		default:
		}
	}
	j.close = func() { close(ch); <-over }
	go func() {
		defer close(over)
		j.write(ch, b)
	}()
	b.journal = j
	return nil
}

// write appends what comes, together what comes within a second, until ch is
// closed.
func (j *journal) write(ch <-chan wire.Event, b *Bus) {
	for e := range ch {
		batch := []wire.Event{e}
		timer, open := time.NewTimer(pace), true
		for waiting := true; waiting && open; {
			select {
			case e, open = <-ch:
				if open {
					batch = append(batch, e)
				}
			case <-timer.C:
				waiting = false
			}
		}
		timer.Stop()
		_ = j.append(batch, b) // only history is lost
	}
}

// append adds events to the file, which is written anew when half of it is
// forgotten.
func (j *journal) append(batch []wire.Event, b *Bus) error {
	if j.lines+len(batch) > 2*History {
		b.mu.Lock()
		batch = append([]wire.Event{}, b.past...)
		b.mu.Unlock()
		data, err := encode(batch)
		if err == nil {
			err = durable.Replace(j.path, data, 0o600)
		}
		j.lines = len(batch)
		return err
	}
	data, err := encode(batch)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	j.lines += len(batch)
	return errors.Join(err, f.Close())
}

func encode(list []wire.Event) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for _, e := range list {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

// readJournal returns the newest events of the file, and how many lines it has. A line that can't be read,
// such as a last one that was being written, is left out.
func readJournal(path string) (list []wire.Event, lines int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		lines++
		var e wire.Event
		if json.Unmarshal(sc.Bytes(), &e) != nil || e.TimeNano == 0 || len(list) > 0 && e.TimeNano <= list[len(list)-1].TimeNano {
			continue
		}
		list = append(list, e)
	}
	return list[max(0, len(list)-History):], lines, nil
}

package job

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gantry/internal/errs"
)

// The wire form is the fields in the order in which the visit functions name
// them, without tags: both halves are the same binary. Integers are 8 bytes
// little endian, strings and lists a 4-byte count and their items, pointers one
// byte (0 absent, 1 present) and the value. A first word tells jobs and
// processes apart and changes with the layout.
const (
	magicJob     = 0x31424f4a59544e47 // "GNTYJOB1"
	magicProcess = 0x3143525059544e47 // "GNTYPRC1"
	magicMount   = 0x31544e4d59544e47 // "GNTYMNT1"
)

// maxEncoded bounds what Decode looks at: arguments and environment together
// can't exceed 6 MiB in Linux (execve(2)), everything else is small.
const maxEncoded = 16 << 20

var errShort = errors.New("message ends early")

// A coder walks over a value and either appends it to buf or fills it from buf.
// One walk for both directions can't disagree about the order.
type coder struct {
	decoding bool
	buf      []byte
	err      error
}

// Encode returns the wire form of j.
func (j *Job) Encode() []byte {
	c := &coder{buf: make([]byte, 0, 8192)}
	c.magic(magicJob)
	visitJob(c, j)
	return c.buf
}

// Decode parses the wire form of a job. It never allocates more than a small
// multiple of len(data). Errors are errs.Invalid.
func Decode(data []byte) (*Job, error) {
	j := new(Job)
	c := &coder{decoding: true, buf: data}
	c.magic(magicJob)
	visitJob(c, j)
	if err := c.end(len(data)); err != nil {
		return nil, errs.New(errs.Invalid, "decode job: %w", err)
	}
	return j, nil
}

// Encode returns the wire form of p.
func (p *Process) Encode() []byte {
	c := &coder{buf: make([]byte, 0, 4096)}
	c.magic(magicProcess)
	visitProcess(c, p)
	return c.buf
}

// DecodeProcess parses the wire form of a process, as Decode does a job's.
func DecodeProcess(data []byte) (*Process, error) {
	p := new(Process)
	c := &coder{decoding: true, buf: data}
	c.magic(magicProcess)
	visitProcess(c, p)
	if err := c.end(len(data)); err != nil {
		return nil, errs.New(errs.Invalid, "decode process: %w", err)
	}
	return p, nil
}

// Encode returns the wire form of m.
func (m *Mount) Encode() []byte {
	c := &coder{buf: make([]byte, 0, 512)}
	c.magic(magicMount)
	visitMount(c, m)
	return c.buf
}

// DecodeMount parses the wire form of a mount, as Decode does a job's.
func DecodeMount(data []byte) (*Mount, error) {
	m := new(Mount)
	c := &coder{decoding: true, buf: data}
	c.magic(magicMount)
	visitMount(c, m)
	if err := c.end(len(data)); err != nil {
		return nil, errs.New(errs.Invalid, "decode mount: %w", err)
	}
	return m, nil
}

func (c *coder) end(total int) error {
	switch {
	case total > maxEncoded:
		return fmt.Errorf("%d bytes are too many", total)
	case c.err != nil:
		return c.err
	case len(c.buf) != 0:
		return fmt.Errorf("%d bytes left over", len(c.buf))
	}
	return nil
}

func (c *coder) magic(m uint64) {
	got := m
	num(c, &got)
	if c.err == nil && got != m {
		c.fail(errors.New("not a message of this version"))
	}
}

// fail remembers the first error; what follows leaves zero values.
func (c *coder) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.buf = nil
}

type integer interface {
	~int | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// num carries any integer as 8 bytes and refuses one that does not fit its
// type.
func num[T integer](c *coder, v *T) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, uint64(*v))
		return
	}
	if len(c.buf) < 8 {
		c.fail(errShort)
		return
	}
	x := binary.LittleEndian.Uint64(c.buf)
	c.buf = c.buf[8:]
	*v = T(x)
	if uint64(*v) != x {
		*v = 0
		c.fail(errors.New("number out of range"))
	}
}

func (c *coder) flag(v *bool) {
	if !c.decoding {
		b := byte(0)
		if *v {
			b = 1
		}
		c.buf = append(c.buf, b)
		return
	}
	if len(c.buf) < 1 {
		c.fail(errShort)
		return
	}
	if c.buf[0] > 1 {
		c.fail(errors.New("not a flag"))
		return
	}
	*v = c.buf[0] == 1
	c.buf = c.buf[1:]
}

// count carries a length. Every item takes at least one byte, so a length
// beyond what is left is wrong before anything is allocated for it.
func (c *coder) count(n int) int {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(n))
		return n
	}
	if len(c.buf) < 4 {
		c.fail(errShort)
		return 0
	}
	x := binary.LittleEndian.Uint32(c.buf)
	c.buf = c.buf[4:]
	if uint64(x) > uint64(len(c.buf)) {
		c.fail(errShort)
		return 0
	}
	return int(x)
}

func (c *coder) str(v *string) {
	n := c.count(len(*v))
	if !c.decoding {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = string(c.buf[:n])
	c.buf = c.buf[n:]
}

func (c *coder) bytes(v *[]byte) {
	n := c.count(len(*v))
	if !c.decoding {
		c.buf = append(c.buf, *v...)
		return
	}
	if n > 0 {
		*v = append([]byte(nil), c.buf[:n]...)
	}
	c.buf = c.buf[n:]
}

// list carries a slice. A decoded slice grows as its items prove to be there.
func list[T any](c *coder, v *[]T, visit func(*coder, *T)) {
	n := c.count(len(*v))
	if !c.decoding {
		for i := range *v {
			visit(c, &(*v)[i])
		}
		return
	}
	if n == 0 {
		return
	}
	*v = make([]T, 0, min(n, 64))
	for range n {
		var item T
		visit(c, &item)
		if c.err != nil {
			*v = nil
			return
		}
		*v = append(*v, item)
	}
}

// opt carries a pointer, nil included.
func opt[T any](c *coder, v **T, visit func(*coder, *T)) {
	present := *v != nil
	c.flag(&present)
	if !present || c.err != nil {
		return
	}
	if c.decoding {
		*v = new(T)
	}
	visit(c, *v)
}

func visitString(c *coder, v *string) { c.str(v) }
func visitFlag(c *coder, v *bool)     { c.flag(v) }

func (c *coder) strs(v *[]string) { list(c, v, visitString) }

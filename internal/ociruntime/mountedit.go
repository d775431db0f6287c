package ociruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/rootpath"
)

// This file changes the mounts of a container that runs. Entering its mount
// namespace takes a process with one thread: the child half does it, without a
// process of its own in the container's other namespaces, so that nobody in there
// sees it.
//
//	parent                              child
//	source as a detached mount
//	          ─── 's' edit, descriptors ─▶ joins mount (and user) namespace
//	          ◀── 'r' mount id ──────────  attached, or detached; ends
//	          ◀── 'e' text ──────────────  …or a failure: nothing was done

// A MountID is what the kernel knows a mount by, for as long as it is mounted.
type MountID struct {
	// ID is the first number of its line in mountinfo (proc_pid_mountinfo(5));
	// it is given out anew when the mount has gone. 0 if it is not known.
	ID uint64
	// Unique is never given out again; 0 on kernels before 6.8.
	Unique uint64
}

const statxMntIDUnique = 0x4000 // STATX_MNT_ID_UNIQUE of <linux/stat.h>, Linux 6.8

// mountID returns what the mount of fd is known by.
func mountID(fd int) MountID {
	var id MountID
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) == nil && st.Mask&unix.STATX_MNT_ID != 0 {
		id.ID = st.Mnt_id
	}
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMntIDUnique, &st) == nil && st.Mask&statxMntIDUnique != 0 {
		id.Unique = st.Mnt_id
	}
	return id
}

// isMountRoot reports whether fd is the top directory, or the file, of its mount.
func isMountRoot(fd int) bool {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

func encodeMountIDs(ids []MountID) []byte {
	b := make([]byte, 0, 16*len(ids))
	for _, id := range ids {
		b = binary.NativeEndian.AppendUint64(b, id.ID)
		b = binary.NativeEndian.AppendUint64(b, id.Unique)
	}
	return b
}

func decodeMountIDs(b []byte) []MountID {
	var ids []MountID
	for ; len(b) >= 16; b = b[16:] {
		ids = append(ids, MountID{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])})
	}
	return ids
}

// An edit is what the child half shall do to a mount namespace: make mount, or
// take the one with an id away from target.
type edit struct {
	pid    int // of the container's first process, in whose user namespace ids are mapped
	mount  *job.Mount
	target string
	id     MountID
}

// Mount makes a mount in the mount namespace of a running container and returns
// what it is known by. The source is opened here, the mount point is found, and
// made if it is missing, inside the container's root and never outside.
func Mount(t Target, m *job.Mount) (MountID, error) {
	i, err := runEdit(t, &edit{mount: m})
	if err != nil {
		return MountID{}, err
	}
	if len(i.mounts) != 1 {
		return MountID{}, errors.New("the runtime's child half said nothing of the mount")
	}
	return i.mounts[0], nil
}

// Unmount takes the mount known by id away from target, with everything that is
// mounted below it. Files that are open in it stay usable. If it has gone already
// that is no error; if something else is at target the error is errs.Conflict
// and nothing is done.
func Unmount(t Target, target string, id MountID) error {
	if id == (MountID{}) {
		return errs.New(errs.Unsupported, "the kernel did not tell by what the mount at %s is known", target)
	}
	_, err := runEdit(t, &edit{target: target, id: id})
	if err == nil || !errors.Is(err, errOther) {
		return err
	}
	if there, e := mounted(t.Pid, id); e == nil && !there {
		return nil
	}
	return errs.New(errs.Conflict, "what is mounted at %s is not what was mounted there for the container", target)
}

// errOther says that a mount is not where it was made.
var errOther = errors.New("another mount is there")

func runEdit(t Target, e *edit) (*Init, error) {
	e.pid = t.Pid
	l := &launch{edit: e, proc: &job.Process{}, procfs: -1}
	defer l.close()
	if err := editPlan(l, t); err != nil {
		return nil, fmt.Errorf("change the container's mounts: %w", err)
	}
	i, err := l.run()
	if err != nil {
		if err.Error() == errOther.Error() {
			err = errOther
		}
		return nil, err
	}
	unix.Close(i.sock)
	i.sock = -1
	i.Wait()
	return i, i.Close()
}

// editPlan joins the mount namespace and, if it is not our own, the user
// namespace, to which what is made then belongs.
func editPlan(l *launch, t Target) error {
	if err := l.execPlan(t); err != nil {
		return err
	}
	l.setup.exec, l.setup.edit = false, true
	if !l.setup.joinMount {
		return errors.New("the container has no mount namespace of its own")
	}
	kept := l.args.joins[:0]
	for _, j := range l.args.joins[:l.args.njoins] {
		if j.flag == unix.CLONE_NEWUSER {
			kept = append(kept, j)
		}
	}
	l.args.njoins, l.args.threadJoins = len(kept), nil
	l.setup.job = l.edit.encode()
	return nil
}

// fillEdit opens what the child needs.
func fillEdit(l *launch) error {
	l.setup.procfs = l.pass(l.procfs)
	if l.edit.mount == nil {
		return nil
	}
	l.setup.mounts = []int32{-1}
	if l.edit.mount.Type != "bind" {
		return nil
	}
	fd, err := l.openBind(l.edit.mount, l.edit.pid)
	if err != nil {
		return err
	}
	l.setup.mounts[0] = l.pass(l.hold(fd))
	return nil
}

// encode is the wire form: the id of the mount to take away, or zeros, then its
// target, or the mount to make.
func (e *edit) encode() []byte {
	b := encodeMountIDs([]MountID{e.id})
	if e.mount != nil {
		return append(b, e.mount.Encode()...)
	}
	return append(b, e.target...)
}

func decodeEdit(b []byte) (*edit, error) {
	if len(b) < 16 {
		return nil, errors.New("the edit is malformed")
	}
	e := &edit{id: decodeMountIDs(b[:16])[0]}
	if e.id != (MountID{}) {
		e.target = string(b[16:])
		return e, nil
	}
	var err error
	e.mount, err = job.DecodeMount(b[16:])
	return e, err
}

// edit is the child half's part. The raw child has joined the user namespace.
func (c *child) edit() error {
	e, err := decodeEdit(c.s.job)
	if err != nil {
		return err
	}
	c.proc = &job.Process{}
	if err := c.enter(); err != nil {
		return err
	}
	var ids []MountID
	if e.mount != nil {
		if tooLong(e.mount) {
			return errs.New(errs.Unsupported, "an option is longer than %d characters", maxFsString)
		}
		id, err := c.tree.mount(e.mount, int(c.s.mounts[0]))
		if err != nil {
			return err
		}
		ids = []MountID{id}
	} else if err := c.unmount(e); err != nil {
		return err
	}
	return send(c.sock, frameReady, encodeMountIDs(ids))
}

// tooLong finds mounts that only mount(2) could make, through a procfs that is
// not ours here.
func tooLong(m *job.Mount) bool {
	for _, o := range append([]string{"=" + m.Source}, m.Data...) {
		if _, value, _ := strings.Cut(o, "="); m.Type != "bind" && len(value) > maxFsString {
			return true
		}
	}
	return false
}

// unmount detaches the mount that is at the target if it is the one meant. The
// descriptor is that of the mount itself, so that nothing which is moved
// meanwhile can be hit instead; umount2(2) takes paths only, hence the name that
// the descriptor has in a procfs which nobody else sees.
func (c *child) unmount(e *edit) error {
	fd, err := c.tree.root.OpenFd(e.target, unix.O_PATH, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return errOther
		}
		return err
	}
	defer unix.Close(fd)
	if mountID(fd) != e.id || !isMountRoot(fd) {
		return errOther
	}
	if err := unix.Fchdir(int(c.s.procfs)); err != nil {
		return fmt.Errorf("enter procfs: %w", err)
	}
	if err := unix.Unmount("self/fd/"+strconv.Itoa(fd), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

// mounted reports whether a process's mount namespace still has a mount.
func mounted(pid int, id MountID) (bool, error) {
	proc, err := privateProcfs()
	if err != nil {
		return false, err
	}
	defer unix.Close(proc)
	data, err := rootpath.At(proc).ReadFile(strconv.Itoa(pid)+"/mountinfo", 16<<20)
	if err != nil {
		return false, err
	}
	want := strconv.FormatUint(id.ID, 10)
	for line := range strings.Lines(string(data)) {
		if first, _, _ := strings.Cut(line, " "); first == want {
			return true, nil
		}
	}
	return false, nil
}

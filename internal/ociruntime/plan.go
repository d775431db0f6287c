package ociruntime

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// createPlan decides which namespaces are made and joined where.
func (l *launch) createPlan() error {
	user := l.job.Namespace(unix.CLONE_NEWUSER)
	newUser := user != nil && user.Path == ""
	joinUser := user != nil && user.Path != ""
	// What is made must belong to a joined user namespace, and a time namespace
	// takes effect for children only: then the raw child clones once more.
	if t := l.job.Namespace(unix.CLONE_NEWTIME); joinUser || t != nil && t.Path == "" {
		l.args.second = true
	}
	var create uintptr
	for _, n := range l.job.Namespaces {
		if n.Path == "" {
			switch n.Type {
			case unix.CLONE_NEWUSER:
			case unix.CLONE_NEWTIME:
				l.args.timeNS = true
			case unix.CLONE_NEWCGROUP:
				// Made by the child half: its root is the group the
				// process is in by then.
				l.setup.cgroupNS = true
			default:
				create |= uintptr(n.Type)
			}
			continue
		}
		if n.Type == unix.CLONE_NEWPID && newUser && l.args.second {
			return errs.New(errs.Unsupported, "a new user and a new time namespace can't be had with an existing pid namespace")
		}
		fd, err := l.openNamespace(n)
		if err != nil {
			return err
		}
		l.join(fd, n.Type, newUser)
	}
	l.moveUserJoinLast()
	switch {
	case newUser:
		l.args.askMaps, l.args.becomeRoot = true, true
		l.args.flags = unix.CLONE_NEWUSER
	case joinUser:
		l.args.becomeRoot = true
	}
	if l.args.second {
		l.args.flags2 = create
	} else {
		l.args.flags |= create
	}
	l.setup.userNS = newUser || joinUser
	l.setup.job = l.job.Encode()
	return nil
}

// join arranges for one existing namespace to be joined at the right place. The
// pid namespace takes children only: the parent's, or, if the raw child clones
// once more, that one's; joined earlier, it would make the raw child see its own
// child's pid as it is in there.
func (l *launch) join(fd int, flag uint32, newUser bool) { //nolint:revive // newUser is a fact, not a mode
	j := nsJoin{uintptr(fd), uintptr(flag)}
	switch {
	case flag == unix.CLONE_NEWNS:
		l.setup.mountNS = l.pass(fd)
		l.setup.joinMount = true
	case flag == unix.CLONE_NEWPID && !l.args.second, newUser && flag != unix.CLONE_NEWUSER && flag != unix.CLONE_NEWTIME:
		l.args.threadJoins = append(l.args.threadJoins, j)
	default:
		l.args.joins[l.args.njoins] = j
		l.args.njoins++
	}
}

// moveUserJoinLast: root of the host may join everything else first, and could
// not afterwards. Somebody else only gets the right to by joining it first.
func (l *launch) moveUserJoinLast() {
	joins := l.args.joins[:l.args.njoins]
	for i, j := range joins {
		if j.flag != unix.CLONE_NEWUSER {
			continue
		}
		copy(joins[i:], joins[i+1:])
		if os.Geteuid() == 0 {
			joins[len(joins)-1] = j
		} else {
			copy(joins[1:], joins)
			joins[0] = j
		}
		return
	}
}

// openNamespace opens a namespace file and checks that it is one of that type.
func (l *launch) openNamespace(n job.Namespace) (int, error) {
	fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s namespace %s: %w", nsFile(n.Type), n.Path, err)
	}
	l.hold(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return -1, fmt.Errorf("%s is no namespace", n.Path)
	}
	if typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || uint32(typ) != n.Type {
		return -1, fmt.Errorf("%s is no %s namespace", n.Path, nsFile(n.Type))
	}
	return fd, nil
}

// execPlan joins all of the target's namespaces that are not our own.
func (l *launch) execPlan(t Target) error {
	if err := l.openProcfs(); err != nil {
		return err
	}
	l.into = t.Pid
	dir := strconv.Itoa(t.Pid) + "/ns/"
	for _, flag := range []uint32{
		unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP,
		unix.CLONE_NEWTIME, unix.CLONE_NEWNS, unix.CLONE_NEWUSER,
	} {
		var theirs, ours unix.Stat_t
		if err := unix.Fstatat(l.procfs, dir+nsFile(flag), &theirs, 0); err != nil {
			if err == unix.ENOENT && flag == unix.CLONE_NEWTIME {
				continue // a kernel without it
			}
			return fmt.Errorf("the container is not running: %w", err)
		}
		if err := unix.Fstatat(l.procfs, "self/ns/"+nsFile(flag), &ours, 0); err == nil && ours.Ino == theirs.Ino && ours.Dev == theirs.Dev {
			continue
		}
		fd, err := unix.Openat(l.procfs, dir+nsFile(flag), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the container's %s namespace: %w", nsFile(flag), err)
		}
		l.join(l.hold(fd), flag, false)
		if flag == unix.CLONE_NEWUSER {
			l.args.becomeRoot = true
			l.setup.userNS = true
		}
	}
	l.moveUserJoinLast()
	if t.Pidfd > 0 {
		if err := unix.PidfdSendSignal(t.Pidfd, 0, nil, 0); err != nil {
			return fmt.Errorf("the container is not running: %w", err)
		}
	}
	l.setup.exec = true
	l.setup.job = l.proc.Encode()
	return nil
}
